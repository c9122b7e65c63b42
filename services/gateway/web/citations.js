/* Citations in the one shape the page uses, whichever way they came: WebSocket frames, stored threads, OpenAI
 * annotations. Pure. */

/** `{index, documentId, filename, space, version, page, headingPath, start, end, quote}` or null when unusable. */
export function citationFrom(raw) {
  const inner = raw?.file_citation ? { ...raw, ...raw.file_citation } : raw || {};
  const index = inner.index ?? inner.number;
  const documentId = inner.document_id ?? inner.file_id;
  if (!Number.isInteger(index) || !documentId) return null;
  return {
    index,
    documentId,
    filename: inner.filename ?? inner.document_name ?? "",
    space: inner.space ?? "",
    version: inner.version ?? null,
    page: inner.page ?? null,
    headingPath: Array.isArray(inner.heading_path) ? inner.heading_path : [inner.heading_path].filter(Boolean),
    start: inner.start ?? 0,
    end: inner.end ?? 0,
    quote: inner.quote ?? "",
  };
}

/** Map index → citation, in the order of the indexes; the first of two with one index wins, as on the box. */
export function citationMap(list) {
  const map = new Map();
  for (const raw of list || []) {
    const citation = citationFrom(raw);
    if (citation && !map.has(citation.index)) map.set(citation.index, citation);
  }
  return new Map([...map].sort(([left], [right]) => left - right));
}
