// Arrays of the document: base64 of zlib of byte planes of differences (ct_adam/report/encoding.py).

const decoded = new WeakMap();

async function inflated(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The numbers of an encoded array, flat in row-major order; kept once they are read. */
async function numbers(text) {
  if (!decoded.has(text)) decoded.set(text, fromPlanes(await inflated(text.data, "deflate"), text));
  return decoded.get(text);
}

function fromPlanes(raw, text) {
  const row = text.shape[text.shape.length - 1];
  const count = text.shape.reduce((product, length) => product * length, 1);
  return text.bytes === 1 ? bytesOf(raw, count, row) : floatsOf(raw, count, row);
}

function bytesOf(raw, count, row) {
  const found = new Uint8Array(count);
  for (let k = 0, code = 0; k < count; k++) {
    code = ((k % row ? code : 0) + raw[k]) & 255;
    found[k] = code;
  }
  return found;
}

/** The upper 24 bits of a float64. */
function floatsOf(raw, count, row) {
  const found = new Float64Array(count);
  const view = new DataView(found.buffer);
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  for (let k = 0, code = 0; k < count; k++) {
    const step = (raw[k] << 16) | (raw[count + k] << 8) | raw[2 * count + k];
    code = ((k % row ? code : 0) + step) & 0xffffff;
    view.setUint32(8 * k + (little ? 4 : 0), (code << 8) >>> 0, little);
  }
  return found;
}
