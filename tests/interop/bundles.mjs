// Verifies Sigstore bundles with @sigstore/verify. Usage: node bundles.mjs FOLDER NODE_MODULES
// FOLDER holds trusted_root.json, signer.pem and *.sigstore.json. Prints NAME accepted | NAME rejected REASON, one a line.
import { createRequire } from 'node:module';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [folder, modules] = process.argv.slice(2);
const require = createRequire(join(modules, 'index.js'));
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const pem = readFileSync(join(folder, 'signer.pem'), 'utf8');
const root = TrustedRoot.fromJSON(JSON.parse(readFileSync(join(folder, 'trusted_root.json'), 'utf8')));
// The key is ours whatever the hint says: trust is never taken from the bundle.
const key = () => ({ publicKey: require('node:crypto').createPublicKey(pem), validFor: () => true });
// Where the root names time-stamping authorities, every bundle must have a time stamp of one of them.
const timestampThreshold = root.timestampAuthorities.length > 0 ? 1 : 0;
const verifier = new Verifier(toTrustMaterial(root, key), { tlogThreshold: 1, ctlogThreshold: 0, timestampThreshold });

for (const file of readdirSync(folder).filter((name) => name.endsWith('.sigstore.json')).sort()) {
  const name = file.replace('.sigstore.json', '');
  try {
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(readFileSync(join(folder, file), 'utf8')))));
    console.log(`${name} accepted`);
  } catch (error) {
    console.log(`${name} rejected ${error.code ?? ''} ${error.message}`.replaceAll('\n', ' '));
  }
}
