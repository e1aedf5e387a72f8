"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("sheets").textContent);
  const viewer = document.getElementById("viewer"), field = viewer.querySelector("form").elements;
  const panels = [...viewer.querySelectorAll("canvas")], small = document.createElement("canvas");
  const [X, Y, Z] = data.shape, [a, b, c] = data.spacing;
  // Planes of w x h voxels of size [mm, mm], n of them along an axis; `at` is the index of a voxel in plane k.
  const planes = {
    axial: { w: X, h: Y, n: Z, size: [a, b], axis: 2, sides: "RLAP", at: (u, v, k) => (k * Y + v) * X + u },
    coronal: { w: X, h: Z, n: Y, size: [a, c], axis: 1, sides: "RLSI", at: (u, v, k) => ((Z - 1 - v) * Y + k) * X + u },
    sagittal: { w: Y, h: Z, n: X, size: [b, c], axis: 0, sides: "APSI", at: (u, v, k) => ((Z - 1 - v) * Y + u) * X + k },
  };

  async function decoded(source) {
    const sheet = new Image(), canvas = document.createElement("canvas"), voxels = new Uint8Array(X * Y * Z);
    sheet.src = source;
    await sheet.decode();
    [canvas.width, canvas.height] = [sheet.width, sheet.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(sheet, 0, 0);
    const pixels = context.getImageData(0, 0, sheet.width, sheet.height).data;
    for (let z = 0, i = 0; z < Z; z++)
      for (let y = 0; y < Y; y++) {
        const row = Math.floor(z / data.columns) * data.tile[1] + y, column = (z % data.columns) * data.tile[0];
        for (let x = 0, p = 4 * (row * sheet.width + column); x < X; x++, p += 4) voxels[i++] = pixels[p];
      }
    return voxels;
  }

  const masks = (await decoded(`data:image/png;base64,${data.masks}`)).map(value => Math.round(value / data.unit));
  if (masks.reduce((sum, bits) => sum + (bits > 0), 0) !== data.drawn) return; // a browser that hides pixels: pictures
  const images = [];
  for (const canvas of panels) images.push(await decoded(`data:image/jpeg;base64,${data.images[canvas.dataset.name]}`));
  let place, turned = 0;

  function paint({ w, h }, colour) { // a pixel per voxel
    [small.width, small.height] = [w, h];
    const picture = new ImageData(w, h);
    for (let v = 0, p = 0; v < h; v++) for (let u = 0; u < w; u++, p += 4) picture.data.set(colour(u, v), p);
    small.getContext("2d").putImageData(picture, 0, 0);
  }

  function outline({ w, h, size: [s, t], at }, k, bit) { // along the edges of voxels
    const path = new Path2D();
    const inside = (u, v) => u >= 0 && v >= 0 && u < w && v < h && (masks[at(u, v, k)] >> bit & 1) === 1;
    for (let v = 0; v <= h; v++)
      for (let u = 0; u <= w; u++) {
        if (inside(u, v) !== inside(u - 1, v)) path.moveTo(u * s, v * t), path.lineTo(u * s, (v + 1) * t);
        if (inside(u, v) !== inside(u, v - 1)) path.moveTo(u * s, v * t), path.lineTo((u + 1) * s, v * t);
      }
    return path;
  }

  function draw() {
    const plane = planes[field.plane.value], { w, h, n, size: [s, t], axis, at } = plane, k = place[axis];
    const shown = [...viewer.querySelectorAll("[name=region]")].flatMap((box, bit) => box.checked ? [bit] : []);
    const filled = shown.filter(bit => field.look.value === "filled" && data.names[bit] !== "brain");
    const lines = shown.filter(bit => !filled.includes(bit)).map(bit => [bit, outline(plane, k, bit)]);
    const gain = 2 ** (field.contrast.value / 50), level = 127.5 - 1.275 * field.brightness.value;
    const known = data.first.length > 0, mm = data.first[axis] + k * data.spacing[axis] * (axis === 2 ? 1 : -1);
    [field.slice.max, field.slice.value] = [n - 1, k];
    const at_mm = known ? `, ${(mm < 0 ? "LPI" : "RAS")[axis]} ${Math.abs(mm).toFixed(0)} mm` : "";
    field.position.value = `${k + 1} of ${n}${at_mm}`;
    field.slice.setAttribute("aria-valuetext", field.position.value);
    panels.forEach((canvas, i) => {
      const dots = devicePixelRatio, rim = 18 * dots, scale = (canvas.clientWidth * dots - 2 * rim) / (w * s);
      const [W, H] = [canvas.width, canvas.height] = [w * s * scale + 2 * rim, h * t * scale + 2 * rim].map(Math.round);
      const context = canvas.getContext("2d");
      const show = () => context.drawImage(small, rim, rim, w * s * scale, h * t * scale);
      paint(plane, (u, v) => {
        const grey = (images[i][at(u, v, k)] - level) * gain + 127.5;
        return [grey, grey, grey, 255];
      });
      context.imageSmoothingQuality = "high";
      show();
      context.globalAlpha = field.opacity.value / 100;
      context.imageSmoothingEnabled = false;
      paint(plane, (u, v) => data.colours[filled.findLast(bit => masks[at(u, v, k)] >> bit & 1)] || [0, 0, 0, 0]);
      show();
      context.setTransform(scale, 0, 0, scale, rim, rim);
      for (const [bit, path] of lines) { // inner regions with thinner lines, so that all stay visible
        [context.strokeStyle, context.lineWidth] = [`rgb(${data.colours[bit].slice(0, 3)})`, (2.5 - bit / 2) * dots / scale];
        context.stroke(path);
      }
      context.setTransform(1, 0, 0, 1, 0, 0);
      [context.globalAlpha, context.fillStyle, context.font] = [1, "#fff", `${12 * dots}px sans-serif`];
      [context.textAlign, context.textBaseline] = ["center", "middle"];
      [[rim / 2, H / 2], [W - rim / 2, H / 2], [W / 2, rim / 2], [W / 2, H - rim / 2]]
        .forEach((corner, side) => context.fillText(known ? plane.sides[side] : "", ...corner));
      context.fillRect(W - rim / 2 - data.bar * scale, H - rim / 2, data.bar * scale, 2 * dots);
    });
  }

  function move(steps) {
    const { axis, n } = planes[field.plane.value];
    place[axis] = Math.min(Math.max(place[axis] + steps, 0), n - 1);
    draw();
  }

  function start(number) {
    place = [...data.starts[number]];
    draw();
  }

  viewer.hidden = false;
  document.documentElement.classList.add("scrolls");
  start(0);
  viewer.addEventListener("input", event => move(event.target === field.slice ? field.slice.value - place[planes[field.plane.value].axis] : 0));
  viewer.addEventListener("reset", () => setTimeout(start, 0, 0));
  viewer.querySelectorAll("[data-start]").forEach(button => button.addEventListener("click", () => start(button.dataset.start)));
  for (const canvas of panels) {
    canvas.addEventListener("click", () => field.slice.focus({ preventScroll: true })); // whose arrow keys then scroll
    canvas.addEventListener("wheel", event => {
      if (event.ctrlKey) return; // zooms the page
      event.preventDefault();
      turned += event.deltaY * (event.deltaMode ? 34 : 1); // a notch of a mouse is 100 pixels or 3 lines
      move(-Math.trunc(turned / 100));
      turned %= 100;
    }, { passive: false });
  }
  addEventListener("resize", draw);
})();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(details => { details.open = true; }));
