// The page at /: a study goes up file by file, is recognised, segmented and taken away. Addresses are relative, so that
// the token in the page's own address stays in them. Names of files and series are only ever set as text.

const $ = (id) => document.getElementById(id);
const AT_A_TIME = 4; // files sent at once
let study = null;

async function ask(method, path, body) {
  const json = body && !(body instanceof Blob);
  const headers = json ? { 'content-type': 'application/json' } : {};
  const answer = await fetch(path, { method, headers, body: json ? JSON.stringify(body) : body });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail ?? `The server answered with status ${answer.status}.`);
  return content;
}

function say(text, done, all) {
  $('status').textContent = text;
  $('progress').hidden = done === undefined;
  if (all) Object.assign($('progress'), { max: all, value: done });
  else $('progress').removeAttribute('value');
}

async function attempt(work) {
  $('problem').hidden = true;
  document.body.setAttribute('aria-busy', 'true');
  for (const each of document.querySelectorAll('button, input, select')) each.disabled = true;
  try {
    await work();
  } catch (error) {
    say('');
    Object.assign($('problem'), { textContent: error.message, hidden: false });
  }
  for (const each of document.querySelectorAll('button, input, select')) each.disabled = false;
  document.body.removeAttribute('aria-busy');
}

function show(section) {
  $(section).hidden = false;
  $(section).querySelector('h2').focus();
}

function element(name, text, options = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...options });
}

async function remove() {
  for (const id of ['recognised', 'result']) $(id).hidden = true;
  if (study) await ask('DELETE', `studies/${study}`);
  study = null;
  say('');
}

async function upload(files) {
  if (!files.length) throw new Error('There is no file in it; drop the folder or the zip of a study.');
  await remove();
  study = (await ask('POST', 'studies')).study;
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
  say('Reading what they are', 0);
  const read = await ask('POST', `studies/${study}/read`);
  const { models } = await ask('GET', 'info/');
  say('');
  $('model').replaceChildren(...Object.entries(models).map(([name, { description }]) => new Option(description, name)));
  showRecognised(read);
}

function showRecognised({ sequences, candidates, automatic, open, left_out: leftOut }) {
  $('candidates').replaceChildren(
    ...candidates.map(({ name, described, modality, reason }) => {
      const row = document.createElement('tr');
      const taken = sequences[modality] ?? 'none of them';
      row.append(element('th', described ? `${name}: ${described}` : name, { scope: 'row' }));
      row.append(element('td', taken), element('td', open.includes(modality) ? `${reason}; its image decides` : reason));
      return row;
    }),
  );
  $('left-out').replaceChildren(...leftOut.map((line) => element('li', line)));
  const named = Object.fromEntries(candidates.map(({ key, name }) => [key, name]));
  for (const old of $('sequences').querySelectorAll('label')) old.remove();
  for (const [sequence, shown] of Object.entries(sequences)) {
    const select = element('select', '', { name: sequence });
    const chosen = named[automatic[sequence]] ?? (open.includes(sequence) ? 'by the images' : 'none');
    select.append(new Option(`auto: ${chosen}`, ''));
    for (const { key, name, usable } of candidates) if (usable) select.append(new Option(name, `=${key}`));
    select.append(new Option('Leave out', 'none'));
    const label = element('label', `${shown} `);
    label.append(select);
    $('sequences').append(label);
  }
  show('recognised');
}

async function segment() {
  $('result').hidden = true;
  const asked = { series: {} };
  for (const { name, value } of $('sequences').querySelectorAll('select')) {
    if (value === 'none') asked[`use_${name}`] = false;
    else if (value) asked.series[name] = value.slice(1);
  }
  await ask('POST', `studies/${study}/segment/${$('model').value}`, asked);
  for (;;) {
    const { state, step, told, files } = await ask('GET', `studies/${study}`);
    if (state === 'failed') throw new Error(told);
    if (state === 'done') return showResult(told, files);
    if ($('status').textContent !== step) say(step, 0); // a screen reader says it once
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function showResult({ answer, warnings }, files) {
  say('Done.');
  $('answer').textContent = answer;
  $('warnings').replaceChildren(...warnings.map((text) => element('li', text)));
  $('open').href = `studies/${study}/summary.html`;
  const links = ['results.zip', ...files].map((name) => element('a', `Save ${name}`, { href: `studies/${study}/${name}`, download: name }));
  $('saves').replaceChildren(...links);
  show('result');
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
  if (document.body.hasAttribute('aria-busy')) return;
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
$('recognised').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt(segment);
});
$('remove').addEventListener('click', () => attempt(remove));
addEventListener('pagehide', () => {
  // The tab is closed, or shows something else: nobody can reach the study from it any more.
  if (study) fetch(`studies/${study}`, { method: 'DELETE', keepalive: true });
});
