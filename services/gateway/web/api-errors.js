/* What can go wrong between the page and the box, as types. Texts for people are made in i18n.js from `code`. */

/** The box answered, and the answer is an error (`docs/api.md`, "Errors"). */
export class ApiError extends Error {
  constructor({ status = 0, code = "internal", message = "", hint = "", type = "", param = null, requestId = "",
                retryAfterSeconds = null } = {}) {
    super(message || code);
    this.name = "ApiError";
    Object.assign(this, { status, code, hint, type, param, requestId, retryAfterSeconds });
  }
}

/** The box did not answer: cable, power, Wi-Fi. Trying again may help. */
export class NetworkError extends ApiError {
  constructor(message = "") {
    super({ code: "network", message });
    this.name = "NetworkError";
  }
}

/** The session ended and could not be renewed: the person has to log in again. */
export class SessionExpired extends ApiError {
  constructor() {
    super({ status: 401, code: "session_expired", message: "the session has ended" });
    this.name = "SessionExpired";
  }
}

const BY_STATUS = {
  400: "invalid_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
  409: "conflict", 413: "too_large", 415: "unsupported_type", 429: "rate_limited", 502: "upstream_failed",
  503: "unavailable", 504: "upstream_timeout", 507: "disk_full",
};

/** ApiError from an HTTP answer; something in between (a proxy) may have answered without our shape. */
export function errorFromAnswer(status, bodyText, header) {
  let error = {};
  try {
    error = JSON.parse(bodyText).error || {};
  } catch {
    /* not ours: the status must do */
  }
  const retryAfter = Number.parseInt(header("retry-after") || "", 10);
  return new ApiError({
    status,
    code: error.code || BY_STATUS[status] || "internal",
    message: error.message,
    hint: error.hint,
    type: error.type,
    param: error.param,
    requestId: header("x-request-id") || "",
    retryAfterSeconds: Number.isFinite(retryAfter) ? retryAfter : null,
  });
}

export const isAbort = (error) => error?.name === "AbortError";
