// The page at /: a study goes up file by file, is recognised, segmented and taken away. Addresses are relative, so that
// the token in the page's own address stays in them. Names of files and series are only ever set as text.

const $ = (id) => document.getElementById(id);
const AT_A_TIME = 4; // files sent at once
const LATER = [502, 503, 504]; // statuses of a server that is busy or starts again
let study = null; // once it is whole, the address holds it after #, so that a reload and Back find it
let sending = null; // aborts what is being sent or read

async function ask(method, path, body) {
  const json = body && !(body instanceof Blob);
  const headers = json ? { 'content-type': 'application/json' } : {};
  const request = { method, headers, body: json ? JSON.stringify(body) : body, signal: sending?.signal };
  for (;;) {
    const answer = await fetch(path, request).catch((error) => error);
    if (answer.ok) return answer.json().catch(() => ({}));
    if (answer.name === 'AbortError') throw answer;
    const again = answer instanceof Error ? method === 'GET' : LATER.includes(answer.status) && ['GET', 'PUT'].includes(method);
    if (!again) {
      if (answer instanceof Error) throw new Error('The connection to the server is lost; try again.');
      const content = await answer.json().catch(() => ({}));
      throw new Error(content.detail ?? `The server answered with status ${answer.status}.`);
    }
    say('The connection is lost or the server is busy; trying again', 0);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function say(text, done, all) {
  if ($('status').textContent !== text) $('status').textContent = text; // a screen reader says it once
  $('progress').hidden = done === undefined;
  if (all) Object.assign($('progress'), { max: all, value: done });
  else $('progress').removeAttribute('value');
}

function mark(state, colour) {
  document.title = [state, $('label').value, 'Segment a study'].filter(Boolean).join(' \u2013 ');
  $('icon').href = $('icon').href.replace(/%23\w+/, `%23${colour}`);
}

const rest = () => ($('result').hidden ? mark('', '888') : mark('Done', '009e73'));

// Nothing is disabled meanwhile, so that the focus stays where it is.
async function attempt(work) {
  if (document.body.hasAttribute('aria-busy')) return;
  $('problem').hidden = true;
  document.body.setAttribute('aria-busy', 'true');
  mark('Working', '005a9c');
  $('cancel').hidden = false;
  try {
    await work();
    rest();
  } catch (error) {
    const cancelled = error.name === 'AbortError';
    sending = null;
    if (cancelled) await remove().catch(() => {});
    say(cancelled ? 'Cancelled.' : '');
    Object.assign($('problem'), { textContent: error.message, hidden: cancelled });
    mark(cancelled ? '' : 'Error', cancelled ? '888' : 'd55e00');
    if (!cancelled) $('problem').focus();
  }
  $('cancel').hidden = true;
  document.body.removeAttribute('aria-busy');
}

function show(section) {
  $(section).hidden = false;
  $(section).querySelector('h2').focus();
}

function element(name, text, options = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...options });
}

function row(heading, ...cells) {
  const made = document.createElement('tr');
  made.append(element('th', heading, { scope: 'row' }), ...cells.map((text) => element('td', text)));
  return made;
}

function forget() {
  study = null;
  history.replaceState(null, '', location.pathname);
}

async function remove() {
  for (const id of ['recognised', 'result']) $(id).hidden = true;
  const removed = study;
  forget();
  if (removed) await ask('DELETE', `studies/${removed}`);
  say('');
}

// What holds of the server: it is said before anything is sent.
async function introduce() {
  const { models, warnings } = await ask('GET', 'info/');
  $('model').replaceChildren(...Object.entries(models).map(([name, { description }]) => new Option(description, name)));
  $('weights').replaceChildren(...warnings.map((text) => element('li', text)));
  const { studies } = await ask('GET', 'studies');
  const open = (name) => attempt(() => begin(`studies?image=${encodeURIComponent(name)}`).then(read));
  $('own-studies').replaceChildren(
    ...studies.map((name) => element('button', name, { type: 'button', className: 'second', onclick: () => open(name) })),
  );
  $('own').hidden = !studies.length;
}

async function begin(path) {
  await remove();
  sending = new AbortController();
  study = (await ask('POST', path)).study;
}

async function upload(files) {
  if (!files.length) throw new Error('There is no file in it; drop the folder or the zip of a study.');
  await begin('studies');
  let sent = 0;
  const left = [...files];
  const send = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [name, file] = next;
      await ask('PUT', `studies/${study}/files?name=${encodeURIComponent(name)}`, file);
      say(`Sending ${files.length} files`, ++sent, files.length);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, send));
  await read();
}

async function read() {
  say('Reading what they are', 0);
  history.replaceState(null, '', `#${study}`);
  const recognised = await ask('POST', `studies/${study}/read`);
  await introduced;
  sending = null;
  showRecognised(recognised);
  say('');
  show('recognised');
}

function card({ key, modality, reason, size, picture, usable }, { sequences, open }, names) {
  const [made, said] = [element('li', ''), element('div', '')];
  const taken = `${usable ? 'Taken for' : 'Not usable:'} ${sequences[modality] ?? 'none of them'}`;
  said.append(element('strong', names[key]), element('p', size, { className: 'note' }));
  said.append(element('p', `${taken} (${reason}${open.includes(modality) ? '; its image decides' : ''})`));
  made.append(picture ? element('img', '', { src: `data:image/png;base64,${picture}`, alt: '' }) : element('span', ''), said);
  return made;
}

function showRecognised(recognised, asked = {}) {
  const { sequences, candidates, automatic, open, refused, left_out: leftOut } = recognised;
  if (asked.model) $('model').value = asked.model;
  const named = Object.fromEntries(candidates.map(({ key, name, described }) => [key, described ? `${name}: ${described}` : name]));
  $('candidates').replaceChildren(...candidates.map((each) => card(each, recognised, named)));
  $('unusable').replaceChildren(...Object.values(refused).map((text) => element('li', text)));
  $('left-out').replaceChildren(...leftOut.map((line) => element('li', line)));
  for (const old of $('sequences').querySelectorAll('label')) old.remove();
  for (const [sequence, shown] of Object.entries(sequences)) {
    const select = element('select', '', { name: sequence });
    const chosen = named[automatic[sequence]] ?? (open.includes(sequence) ? 'by the images' : '');
    select.append(new Option(`auto: ${chosen || 'none'}`, ''));
    select.dataset.found = chosen;
    for (const { key, usable } of candidates) if (usable) select.append(new Option(named[key], `=${key}`));
    select.append(new Option('Leave out', 'none'));
    const out = asked[`use_${sequence}`] === false || refused[sequence];
    select.value = asked.series?.[sequence] ? `=${asked.series[sequence]}` : out ? 'none' : '';
    const label = element('label', `${shown} `);
    label.append(select);
    $('sequences').append(label);
  }
  check();
}

// What can be found at once does not wait for its turn.
function check() {
  const selects = [...$('sequences').querySelectorAll('select')];
  const set = selects.filter(({ value }) => value.startsWith('='));
  const twice = set.find(({ value }, at) => set.findIndex((other) => other.value === value) < at);
  let why = '';
  if (twice) why = `${twice.selectedOptions[0].text}: chosen for two sequences. Choose it for one.`;
  else if (!set.length && !selects.some(({ value, dataset }) => !value && dataset.found))
    why = 'No sequence is recognised and none is chosen. Choose what to use as at least one of them.';
  $('refused').textContent = why;
  $('segment').disabled = Boolean(why);
}

async function segment() {
  $('result').hidden = true;
  const asked = { series: {}, label: $('label').value };
  for (const { name, value } of $('sequences').querySelectorAll('select')) {
    if (value === 'none') asked[`use_${name}`] = false;
    else if (value) asked.series[name] = value.slice(1);
  }
  await ask('POST', `studies/${study}/segment/${$('model').value}`, asked);
  if (await follow()) show('result');
}

// Follow a study until it is done (true) or nothing is done with it any more.
async function follow() {
  for (;;) {
    const { state, step, seconds, told, files, recognised } = await ask('GET', `studies/${study}?brief=true`);
    if (state === 'failed') throw new Error(told);
    if (state === 'done') {
      showResult(told, files);
      return true;
    }
    if (state === 'received') {
      say(recognised ? (told ?? '') : 'The study was not read to its end; drop it again.');
      return false;
    }
    say(`${step || 'Reading what they are'}${seconds ? ` (about ${Math.ceil(seconds / 60)} min, by the last studies)` : ''}`, 0);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function showResult({ answer, warnings, regions, picture, used }, files) {
  say('Done.');
  for (const { name, options, value: chosen } of $('sequences').querySelectorAll('select')) // images may decide otherwise
    if (!chosen) options[0].text = `auto: ${[...options].find(({ value }) => value === `=${used[name]}`)?.text ?? 'none'}`;
  $('answer').textContent = answer;
  $('warnings').replaceChildren(...warnings.map((text) => element('li', text)));
  $('regions').replaceChildren(...regions.map(([colour, ...cells]) => {
    const made = row(...cells);
    // The colour is that of its outline in the picture.
    Object.assign(made.firstChild.style, { borderLeft: `0.4em solid ${colour}`, paddingLeft: '0.4em' });
    return made;
  }));
  if (picture) $('picture').src = `data:image/png;base64,${picture}`;
  else $('picture').removeAttribute('src');
  const at = `studies/${study}`;
  const [name, text] = files.includes('seg.dcm') ? ['dicom.zip', 'Save for the PACS (SEG and SR)'] : ['results.zip', 'Save all files'];
  Object.assign($('save'), { href: `${at}/${name}`, download: name, textContent: text });
  $('open').href = `${at}/summary.html`;
  $('saves').replaceChildren(...['results.zip', ...files].map((each) => element('a', `Save ${each}`, { href: `${at}/${each}`, download: each })));
}

async function resume() {
  study = location.hash.slice(1);
  const { state, recognised, asked } = await ask('GET', `studies/${study}`).catch((error) => {
    forget();
    throw error;
  });
  $('label').value = asked.label ?? '';
  if (recognised) showRecognised(recognised, asked);
  $('recognised').hidden = !recognised;
  if (await follow()) $('result').hidden = false;
  else if (state === 'reading') location.reload();
}

// Dropped folders are walked; a browser gives their entries in pieces.
async function filesOf(entry, path = '') {
  if (entry.isFile) return [[path + entry.name, await new Promise((...then) => entry.file(...then))]];
  const [reader, files] = [entry.createReader(), []];
  for (;;) {
    const some = await new Promise((...then) => reader.readEntries(...then));
    if (!some.length) return files;
    for (const each of some) files.push(...(await filesOf(each, `${path}${entry.name}/`)));
  }
}

for (const event of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(event, (dragged) => {
    dragged.preventDefault(); // dropped beside it, a file must not replace the page
    $('drop').classList.toggle('over', event === 'dragover');
  });
}
document.addEventListener('drop', ({ dataTransfer }) => {
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  attempt(async () => upload((await Promise.all(entries.map((entry) => filesOf(entry)))).flat()));
});
for (const id of ['folder', 'files']) {
  $(id).addEventListener('change', ({ target }) => {
    const files = [...target.files].map((file) => [file.webkitRelativePath || file.name, file]);
    target.value = ''; // so that the same choice counts again
    if (files.length) attempt(() => upload(files));
  });
}
$('recognised').addEventListener('change', check);
$('recognised').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt(segment);
});
$('label').addEventListener('input', rest);
$('cancel').addEventListener('click', () => (sending ? sending.abort() : ask('POST', `studies/${study}/cancel`).catch(() => {})));
$('remove').addEventListener('click', () => attempt(remove));
addEventListener('beforeunload', (event) => {
  if (document.body.hasAttribute('aria-busy')) event.preventDefault(); // the browser asks
});
addEventListener('pagehide', () => {
  // A study of which a part is missing cannot be found again.
  if (study && !location.hash) fetch(`studies/${study}`, { method: 'DELETE', keepalive: true });
});
addEventListener('hashchange', () => location.reload());
const introduced = introduce(); // meanwhile a study can be dropped
introduced.catch(({ message }) => Object.assign($('problem'), { textContent: message, hidden: false }));
if (location.hash) attempt(() => introduced.then(resume));
