// Served as OHIF's app-config.js. MONAI Label's panel neither says why a request failed nor what a result was made from,
// and it draws a result on the series that it was connected with, whichever it was made for: see to that here.

const base = window.PUBLIC_URL.replace(/ohif\/$/, ''); // the server's, with its token

window.config = {
  routerBasename: `${base}ohif/`,
  showStudyList: true,
  extensions: [],
  modes: [],
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  useSharedArrayBuffer: 'FALSE',
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'DICOMweb archive',
        name: 'archive',
        wadoUriRoot: `${base}proxy/dicom/wado`,
        qidoRoot: `${base}proxy/dicom/qido`,
        wadoRoot: `${base}proxy/dicom/wado`,
        qidoSupportsIncludeField: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: false,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};

// The panel would look for the server at port 8000.
document.cookie = `MONAILABEL_SERVER_URL=${escape(location.origin + base)}`;

function notify(message, type) {
  const show = () => window.services.uiNotificationService.show({ title: 'Server', message, type, duration: 20000 });
  setTimeout(show, 500); // above the panel's own
}

function drawnOnAnother(series) {
  const drawing = window.services.segmentationService.getLabelmapVolume('1'); // the panel's own
  return drawing && drawing.metadata.SeriesInstanceUID !== series;
}

const { open, send } = XMLHttpRequest.prototype;

XMLHttpRequest.prototype.open = function (method, url, ...others) {
  this.asked = { method, url: new URL(url, location.href) };
  return open.call(this, method, url, ...others);
};

XMLHttpRequest.prototype.send = function (body) {
  const { method, url } = this.asked;
  const series = url.pathname.startsWith(`${base}infer/`) && url.searchParams.get('image');
  if (series && drawnOnAnother(series)) {
    const message =
      'The panel draws on the series that was shown when it connected: show that one again, or reload the page and ' +
      'show this one before you press the round arrow.';
    notify(message, 'error');
    throw new Error(message);
  }
  if (method.toUpperCase() !== 'GET') {
    this.addEventListener('load', () => {
      if (series && drawnOnAnother(series)) {
        Object.defineProperty(this, 'status', { value: 409 }); // before the panel looks at it
        notify('The panel was connected with another series meanwhile; the result is not drawn.', 'error');
        return;
      }
      const message = this.getResponseHeader('x-message');
      if (message) notify(JSON.parse(message), this.status < 400 ? 'info' : 'error');
    });
  }
  return send.call(this, body);
};
