// Builds the program from operator.ts into dist/.
//
//   npm run build                 for this machine
//   npm run build -- --all        for both Linux architectures as well
//   npm run build -- --static     static binaries or none
//   npm run build -- --bundle     the bundle alone
//
//   statefulcluster.cjs           operator.ts and its packages, one readable file
//   statefulcluster-<os>-<cpu>    that file inside Node; needs neither Node nor npm
//   image.tar                     the Linux binaries as a container image, made without Docker
//   THIRD-PARTY-LICENSES          of what is inside
//   SHA256SUMS                    of all of these
//
// Two builds of one commit give the same bytes, in whatever folder. What is not in the commit: a
// binary depends on the `strip` of the machine, and an image on the machine's C libraries.
//
// A binary is static where pkg's static Node can be downloaded. Elsewhere it is a single executable
// made of the Node that package-lock.json pins by its hash, and needs the C libraries of a usual
// Linux. Not built: Windows, and macOS on arm64, for which npm has no Node 24.

import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as esbuild from 'esbuild';

const run = promisify(execFile);
const root = import.meta.dirname;
const dist = path.join(root, 'dist');
const cache = path.join(root, 'node_modules/.cache/statefulcluster');
const bundle = path.join(dist, 'statefulcluster.cjs');
const read = (...parts) => fs.readFileSync(path.resolve(root, ...parts), 'utf8');
const digest = (algorithm, encoding, file) => hash(algorithm, fs.readFileSync(file), encoding);
const project = JSON.parse(read('package.json'));
const home = project.repository.url.replace(/^git\+|\.git$/g, '');
const imageName = `ghcr.io${new URL(home).pathname}:${project.version}`;
const binaryOf = (platform) => path.join(dist, `statefulcluster-${platform}`);

// ═══ BUNDLE ══════════════════════════════════════════════════════════════════════════════════════

/** Of the client the operator needs its YAML; its index, a thousand files, is passed by.
 *  What these import but do not use stays out as well: merely importing it does nothing, which the
 *  package fails to say. So do models, proxies, and of undici all but its dispatchers. */
const onlyWhatIsNeeded = {
  name: 'only-what-is-needed',
  setup(build) {
    const client = path.join(root, 'node_modules/@kubernetes/client-node/dist');
    const undici = `Object.assign(require('./dispatcher/dispatcher').prototype, require('./api'));
exports.Pool = require('./dispatcher/pool'); exports.buildConnector = require('./core/connect');
exports.ProxyAgent = require('./dispatcher/proxy-agent');
exports.Socks5ProxyAgent = require('./dispatcher/socks5-proxy-agent');`;
    build.onResolve({ filter: /^(undici|socks|hpag)/ }, ({ path }) => ({ path, namespace: 'in' }));
    build.onLoad({ filter: /./, namespace: 'in' }, ({ path: name }) => ({
      contents: name === 'undici' ? undici : 'module.exports = {};',
      resolveDir: path.join(root, 'node_modules/undici/lib'),
    }));
    build.onLoad({ filter: /gen.models.all\.js$/ }, () => ({ contents: '' }));
    const asItIs =
      'export const ObjectSerializer = { serialize: (o) => o, deserialize: (o) => o };';
    build.onLoad({ filter: /dist.serializer\.js$/ }, () => ({ contents: asItIs }));
    const own = { contents: `export * from './yaml.js';` };
    build.onLoad({ filter: /./, namespace: 'client' }, () => ({ ...own, resolveDir: client }));
    build.onResolve({ filter: /^(@kubernetes\/client-node$|\.)/ }, ({ path: name, resolveDir }) => {
      if (!name.startsWith('.')) return { path: name, namespace: 'client' };
      if (!resolveDir.startsWith(client) || !name.endsWith('.js')) return undefined;
      return { path: path.resolve(resolveDir, name), sideEffects: false };
    });
  },
};

/** Makes the one CommonJS file, because a single executable of Node 24 takes no other format.
 *  CommonJS has neither import.meta nor a top-level await: the last line of operator.ts, which has
 *  them, is switched off, and the entry here stands in for it. Returns the packages inside. */
async function makeBundle() {
  const entry = `import { main } from './operator.ts';
main(process.argv.slice(2)).then(process.exit);`;
  const { metafile } = await esbuild.build({
    stdin: { contents: entry, resolveDir: root, sourcefile: 'entry.js' },
    define: {
      'import.meta.main': 'false',
      'import.meta.dirname': '""',
      'process.env.STATEFULCLUSTER_VERSION': JSON.stringify(project.version),
      'process.env.STATEFULCLUSTER_MANIFEST': JSON.stringify(read('deploy.yaml')),
    },
    banner: { js: `// ${project.name} ${project.version} · ${project.license} · see operator.ts` },
    absWorkingDir: root, // Paths in the comments are relative to it: the bytes do not depend on it.
    outfile: bundle,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    keepNames: true,
    charset: 'utf8',
    legalComments: 'eof',
    metafile: true,
    plugins: [onlyWhatIsNeeded],
  });
  const { inputs } = metafile.outputs['dist/statefulcluster.cjs'];
  const files = Object.keys(inputs).filter((file) => inputs[file].bytesInOutput > 0);
  const folders = files.map((file) => /^.*node_modules\/(@[^/]+\/)?[^/]+/.exec(file)?.[0]);
  return [...new Set(folders)].filter((folder) => folder !== undefined).sort();
}

/** Licences ask to go wherever their code goes. */
function writeLicenses(file, folders) {
  const texts = folders.map((folder) => {
    const { name, version, license } = JSON.parse(read(folder, 'package.json'));
    const files = fs
      .readdirSync(path.resolve(root, folder))
      .filter((f) => /^(licen|notice)/i.test(f));
    const text = files.map((f) => read(folder, f).trim());
    return [`═══ ${name} ${version} · ${license}`, ...text].join('\n\n');
  });
  fs.writeFileSync(file, texts.join('\n\n') + '\n');
}

// ═══ NODE ════════════════════════════════════════════════════════════════════════════════════════

/** Runs a tool of pkg on this very Node, with its two cache folders inside ours. */
function runPkg(tool, args) {
  const bin = path.join(root, 'node_modules/@yao-pkg', tool, 'lib-es5/bin.js');
  const env = { ...process.env, HOME: cache, PKG_CACHE_PATH: cache, NO_COLOR: '1' };
  return run(process.execPath, [bin, ...args], { cwd: dist, env });
}

/** The version of pkg's static Node, now in the cache, or why it is missing. pkg pins its hash. */
async function findStaticNode(platform) {
  const [os, cpu] = platform.split('-');
  if (os !== 'linux') return { missing: 'only Linux has one' };
  const wanted = ['-n', 'node24', '-p', 'linuxstatic', '-a', cpu, '--force-fetch'];
  try {
    const { stdout } = await runPkg('pkg-fetch', wanted);
    return { version: /v([\d.]+)-linuxstatic/.exec(stdout)[1] };
  } catch (error) {
    return { missing: /Error! (.*)/.exec(`${error.stdout}${error.stderr}`)?.[1] ?? error.message };
  }
}

/** The pinned Node: as npm ci installed it for this machine, or fetched for another one and held
 *  against the hash in package-lock.json. */
async function findPinnedNode(platform) {
  const name = `node-${platform}`;
  const version = project.optionalDependencies[name];
  if (!version) throw new Error(`package.json pins no Node for ${platform}`);
  const installed = path.join(root, 'node_modules', name);
  if (fs.existsSync(installed)) return { version, folder: installed };
  const folder = path.join(cache, name);
  const tarball = path.join(cache, `${name}-${version}.tgz`);
  fs.mkdirSync(folder, { recursive: true });
  await run('npm', ['pack', `${name}@${version}`, '--pack-destination', cache]);
  const { integrity } = JSON.parse(read('package-lock.json')).packages[`node_modules/${name}`];
  if (`sha512-${digest('sha512', 'base64', tarball)}` !== integrity) {
    throw new Error(`${name}@${version} is not what package-lock.json pins`);
  }
  await run('tar', ['-xzf', tarball, '-C', folder, '--strip-components=1']);
  return { version, folder };
}

/** Symbols are a seventh of the file and serve only a debugger of Node. A strip may not know the
 *  other architecture; if none does, they stay. */
async function dropSymbols(file, platform) {
  if (!platform.startsWith('linux')) return;
  for (const strip of ['strip', 'aarch64-linux-gnu-strip', 'llvm-strip']) {
    if (await run(strip, [file]).then(Boolean, () => false)) break;
  }
}

// ═══ BINARY ══════════════════════════════════════════════════════════════════════════════════════

/** Puts the bundle into a Node, as Node's manual for single executables says. `pkg --sea` does that
 *  too, but it writes the path of this folder into the file, so that each clone would give another
 *  one. No code cache either: it saves 3 ms of the start, and is different in each build. */
async function embed(platform, { version, folder }, file) {
  if (process.versions.node !== version) {
    throw new Error(
      `${platform} is built by Node ${version} (npm run build), not by ${process.version}`,
    );
  }
  const [config, blob] = ['sea.json', 'sea.blob'].map((name) => path.join(cache, name));
  const sea = { main: path.basename(bundle), output: blob, disableExperimentalSEAWarning: true };
  fs.mkdirSync(cache, { recursive: true });
  fs.writeFileSync(config, JSON.stringify(sea));
  await run(process.execPath, ['--experimental-sea-config', config], { cwd: dist });
  fs.copyFileSync(path.join(folder, 'bin/node'), file);
  await dropSymbols(file, platform);
  const inject = path.join(root, 'node_modules/postject/dist/cli.js'); // Comes with pkg.
  const fuse = ['--sentinel-fuse', 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'];
  const mac = platform.startsWith('darwin');
  if (mac) fuse.push('--macho-segment-name', 'NODE_SEA');
  await run(process.execPath, [inject, file, 'NODE_SEA_BLOB', blob, ...fuse]);
  if (mac) await run('codesign', ['--force', '--sign', '-', file]);
}

/** Makes the binary for one platform. Returns its file and a line about it. */
async function makeBinary(platform, staticOnly) {
  const file = binaryOf(platform);
  const base = await findStaticNode(platform);
  if (base.version) {
    const target = `node${base.version}-${platform.replace('linux', 'linuxstatic')}`;
    const asText = ['--no-bytecode', '--public', '--public-packages', '*']; // Readable inside, too.
    await runPkg('pkg', [bundle, '-t', target, '-o', file, ...asText]);
    return { file, about: `static, Node ${base.version}` };
  }
  if (staticOnly) throw new Error(`no static Node for ${platform} from pkg: ${base.missing}`);
  const pinned = await findPinnedNode(platform);
  await embed(platform, pinned, file);
  const needs = platform.startsWith('linux') ? 'glibc 2.28 and libstdc++' : 'nothing else';
  return { file, about: `Node ${pinned.version}, needs ${needs} (not static: ${base.missing})` };
}

// ═══ IMAGE ═══════════════════════════════════════════════════════════════════════════════════════

/** What ld.so reads of a 64-bit ELF file: its machine, its interpreter, the libraries it needs. */
function readElf(elf) {
  const u64 = (at) => Number(elf.readBigUInt64LE(at));
  const text = (at) => elf.toString('latin1', at, elf.indexOf(0, at));
  const rows = (at, count, size) => Array.from({ length: count }, (_, i) => at + i * size);
  const headers = rows(u64(32), elf.readUInt16LE(56), elf.readUInt16LE(54));
  const segments = (type) => headers.filter((at) => elf.readUInt32LE(at) === type);
  const [LOAD, DYNAMIC, INTERP] = [1, 2, 3].map(segments);
  const offset = (header) => u64(header + 8);
  const tags = DYNAMIC.flatMap((at) => rows(offset(at), u64(at + 32) / 16, 16));
  const values = (type) => tags.filter((at) => u64(at) === type).map((at) => u64(at + 8));
  const [NEEDED, [strings]] = [1, 5].map(values); // `strings` is an address in memory.
  const segment = LOAD.findLast((at) => u64(at + 16) <= strings);
  const names = NEEDED.map((at) => text(strings - u64(segment + 16) + offset(segment) + at));
  const [interpreter] = INTERP.map((at) => text(offset(at)));
  return { machine: elf.readUInt16LE(18), interpreter, needed: names };
}

/** The C libraries that a binary needs, by their paths in the image, as this machine has them: from
 *  where ld.so looks, or for the other architecture where Debian's cross packages put them. */
function findLibraries(binary, cpu) {
  const { machine, interpreter, needed } = readElf(binary);
  const [files, missing] = [{}, []];
  if (!interpreter) return { files, missing }; // Static.
  const triplet = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[cpu];
  const cross = `/usr/${triplet}/lib`;
  const folders = [`/lib/${triplet}`, `/usr/lib/${triplet}`, '/lib64', '/usr/lib64', cross];
  const fits = (file) => fs.existsSync(file) && readElf(fs.readFileSync(file)).machine === machine;
  // The last two find hosts for glibc before 2.34.
  const names = new Set([
    path.basename(interpreter),
    ...needed,
    'libnss_files.so.2',
    'libnss_dns.so.2',
  ]);
  for (const name of names) {
    const folder = folders.find((folder) => fits(path.join(folder, name)));
    if (!folder && !name.startsWith('libnss')) missing.push(name);
    if (!folder) continue;
    const content = fs.readFileSync(path.join(folder, name));
    const usual = path.join(folder === cross ? folders[0] : folder, name);
    files[name === path.basename(interpreter) ? interpreter : usual] = content;
    for (const other of readElf(content).needed) names.add(other);
  }
  return { files, missing };
}

/** A tar archive (ustar) that depends on its files alone: sorted, of root, without a time. */
function tar(files) {
  const byName = new Map(Object.entries(files).map(([name, f]) => [name.replace(/^\//, ''), f]));
  const folders = [...byName.keys()].flatMap((name) =>
    [...name.matchAll(/\//g)].map(({ index }) => name.slice(0, index + 1)),
  );
  const octal = (value, digits) => `${value.toString(8).padStart(digits, '0')}\0`;
  const blocks = [...new Set([...folders, ...byName.keys()])].sort().flatMap((name) => {
    const body = Buffer.from(byName.get(name) ?? '');
    const isFolder = name.endsWith('/');
    const runs = isFolder || body.toString('latin1', 0, 4) === '\x7fELF';
    const owner = octal(0, 7) + octal(0, 7);
    const sizeAndTime = octal(body.length, 11) + octal(0, 11);
    const head = name.padEnd(100, '\0') + octal(runs ? 0o755 : 0o644, 7) + owner + sizeAndTime;
    const tail = `${isFolder ? 5 : 0}`.padEnd(101, '\0') + 'ustar\x0000';
    const sum = [...Buffer.from(`${head}        ${tail}`, 'latin1')].reduce((a, b) => a + b);
    const header = Buffer.alloc(512);
    header.write(`${head}${octal(sum, 6)} ${tail}`, 'latin1');
    return [header, body, Buffer.alloc(-body.length & 511)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/** What an image says of itself; of the commit only where this folder is a clone. */
async function findLabels() {
  const git = (...args) => run('git', args, { cwd: root }).then(({ stdout }) => stdout.trim());
  const isClone = await git('rev-parse', '--show-prefix').then(
    (prefix) => !prefix,
    () => false,
  );
  const [commit = '', seconds = 0] = isClone
    ? (await git('log', '-1', '--format=%H %ct')).split(' ')
    : [];
  const dirty = isClone && (await git('status', '--porcelain')) ? '-dirty' : '';
  const labels = Object.entries({
    title: project.name,
    description: project.description,
    version: project.version,
    licenses: project.license,
    source: home,
    revision: commit + dirty,
    created: new Date(seconds * 1000).toISOString(),
  });
  const known = labels.filter(([, value]) => value !== '');
  return Object.fromEntries(known.map(([key, v]) => [`org.opencontainers.image.${key}`, v]));
}

/** All there is in the image, as a tar archive: from scratch, and nothing that is written to. */
function makeLayer(binary, libraries) {
  const files = {
    '/statefulcluster': binary,
    '/licenses/LICENSE': read('LICENSE'),
    '/licenses/THIRD-PARTY-LICENSES': read('dist/THIRD-PARTY-LICENSES'),
    '/etc/passwd': 'root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n',
    '/etc/group': 'root:x:0:\nnonroot:x:65532:\n',
    '/etc/nsswitch.conf': 'hosts: files dns\n',
    ...libraries,
  };
  for (const name of Object.keys(libraries).length > 0 ? ['libc6', 'libstdc++6'] : []) {
    const file = `/usr/share/doc/${name}/copyright`; // Where Debian keeps it.
    if (fs.existsSync(file)) files[`/licenses/${name}`] = read(file);
  }
  return tar(files);
}

/** An OCI layout as a tar archive, of one layer for each architecture. The manifest.json in it is
 *  what an older `docker load` reads; it names the first one only. */
function packImage(layers, labels) {
  const files = { 'oci-layout': JSON.stringify({ imageLayoutVersion: '1.0.0' }) };
  const type = (name) => `application/vnd.oci.image.${name}`;
  const place = ({ digest }) => `blobs/${digest.replace(':', '/')}`;
  const add = (name, content) => {
    const body = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
    const blob = {
      mediaType: type(name),
      digest: `sha256:${hash('sha256', body)}`,
      size: body.length,
    };
    files[place(blob)] = body;
    return blob;
  };
  const addAll = (name, more) => add(name, { schemaVersion: 2, mediaType: type(name), ...more });
  const user = { User: '65532:65532', Entrypoint: ['/statefulcluster'], Cmd: ['run'] };
  const images = [...layers].map(([architecture, layer]) => {
    const packed = gzipSync(layer);
    packed[9] = 255; // The system that packed it: unknown.
    const config = add('config.v1+json', {
      created: labels['org.opencontainers.image.created'],
      architecture,
      os: 'linux',
      config: { ...user, Labels: labels },
      rootfs: { type: 'layers', diff_ids: [`sha256:${hash('sha256', layer)}`] },
    });
    const parts = { config, layers: [add('layer.v1.tar+gzip', packed)] };
    const manifest = addAll('manifest.v1+json', { ...parts, annotations: labels });
    return { ...parts, manifest: { ...manifest, platform: { architecture, os: 'linux' } } };
  });
  const manifests = images.map(({ manifest }) => manifest);
  const top = manifests.length > 1 ? addAll('index.v1+json', { manifests }) : manifests[0];
  const names = {
    'io.containerd.image.name': imageName,
    'org.opencontainers.image.ref.name': project.version,
  };
  const index = { schemaVersion: 2, manifests: [{ ...top, annotations: names }] };
  files['index.json'] = JSON.stringify(index);
  const first = { Config: place(images[0].config), Layers: images[0].layers.map(place) };
  files['manifest.json'] = JSON.stringify([{ ...first, RepoTags: [imageName] }]);
  return tar(files);
}

/** Makes one image of the Linux binaries whose libraries this machine has. Returns its file, if
 *  there is one, and a line about it. */
async function makeImage(platforms) {
  const layers = new Map();
  const said = [];
  for (const platform of platforms.filter((name) => name.startsWith('linux'))) {
    const cpu = platform.slice('linux-'.length);
    const binary = fs.readFileSync(binaryOf(platform));
    const { files, missing } = findLibraries(binary, cpu);
    if (missing.length === 0) layers.set(cpu.replace('x64', 'amd64'), makeLayer(binary, files));
    said.push(missing.length > 0 ? `not ${cpu}: no ${missing.join(', ')} here` : `linux-${cpu}`);
  }
  const about = `${imageName} for ${said.join(', ') || 'Linux only'}`;
  if (layers.size === 0) return { about: `no image ${about}` };
  const file = path.join(dist, 'image.tar');
  fs.writeFileSync(file, packImage(layers, await findLabels()));
  return { file, about };
}

async function build(args) {
  const flag = { type: 'boolean' };
  const options = { all: flag, static: flag, bundle: flag };
  const { values } = parseArgs({ args, options });
  const host = `${process.platform}-${process.arch}`;
  const platforms = new Set(values.all ? [host, 'linux-x64', 'linux-arm64'] : [host]);

  fs.rmSync(dist, { recursive: true, force: true });
  if (values.bundle) return void (await makeBundle());
  const licenses = path.join(dist, 'THIRD-PARTY-LICENSES');
  writeLicenses(licenses, [...(await makeBundle()), (await findPinnedNode(host)).folder]);
  const made = [{ file: bundle, about: 'for Node 24' }];
  made.push({ file: licenses, about: 'text' });
  for (const platform of platforms) made.push(await makeBinary(platform, values.static));
  made.push(await makeImage([...platforms]));

  let sums = '';
  for (const { file, about } of made) {
    const line = file ? `${digest('sha256', 'hex', file)}  ${path.basename(file)}\n` : '';
    const size = file ? `  ${(fs.statSync(file).size / 1e6).toFixed(1)} MB, ` : '';
    console.log(line + size + about);
    sums += line;
  }
  fs.writeFileSync(path.join(dist, 'SHA256SUMS'), sums);
}

build(process.argv.slice(2)).catch((error) => {
  console.error(`build: ${error.message.trim()}\n${error.stdout ?? ''}`.trim());
  process.exitCode = 1;
});
