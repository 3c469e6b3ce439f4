// fetch and what belongs to it.
import { Blob, File } from "./blob.js";
import { cloneable } from "./clone.js";
import { fetch } from "./fetch.js";
import { FormData } from "./formdata.js";
import { Headers } from "./headers.js";
import { Request } from "./request.js";
import { Response } from "./response.js";

const refused = [FormData, Headers, Request, Response];
cloneable((value) => refused.some((Class) => value instanceof Class));

export const shared = { Blob, File, FormData, Headers, Request, Response };
export const also = [new Headers().entries(), new FormData().entries()];
export { fetch };
