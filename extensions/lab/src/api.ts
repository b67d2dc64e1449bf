import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { IProblem, IStatus } from './types';

/** An error of the runner or of the way to it: what failed, where, what to do, and whether trying again can help. */
export class ApiError extends Error {
  constructor(
    readonly problem: IProblem,
    readonly status: number
  ) {
    super(problem.message);
    this.name = 'ApiError';
  }
}

/** Any error as one that can be shown. */
export function asProblem(error: unknown): IProblem {
  if (error instanceof ApiError) {
    return error.problem;
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'PanelError', message, where: '', remedy: '', retry: false };
}

/** An error that stands in a step or transfer, which may be a bare sentence. */
export function problemOf(error: IProblem | string | null | undefined): IProblem | null {
  if (!error) {
    return null;
  }
  return typeof error === 'string' ? { code: '', message: error, where: '', remedy: '', retry: false } : error;
}

export interface IApi {
  call<T>(op: string, args?: object): Promise<T>;
  status(): Promise<IStatus>;
  pictureUrl(run: string, step: string, name: string, attempt: number): string;
  eventsUrl(): string;
  openSocket(): WebSocket;
}

/** The server extension, spoken to with the credentials and the XSRF token of JupyterLab. */
export class Api implements IApi {
  constructor(private settings = ServerConnection.makeSettings()) {}

  async call<T>(op: string, args: object = {}): Promise<T> {
    return this.request<T>(`api/${op}`, { method: 'POST', body: JSON.stringify(args) });
  }

  async status(): Promise<IStatus> {
    return this.request<IStatus>('status', { method: 'GET' });
  }

  /** The attempt is part of the address, so that a picture of an earlier one is never shown for it. */
  pictureUrl(run: string, step: string, name: string, attempt: number): string {
    const query = URLExt.objectToQueryString({ run, step, name, attempt: String(attempt) });
    return URLExt.join(this.settings.baseUrl, 'dcde', 'picture') + query;
  }

  eventsUrl(): string {
    return URLExt.join(this.settings.wsUrl, 'dcde', 'events');
  }

  /** The socket is opened with the cookie of the login: no token ever stands in an address. */
  openSocket(): WebSocket {
    return new this.settings.WebSocket(this.eventsUrl());
  }

  private async request<T>(path: string, init: RequestInit): Promise<T> {
    const url = URLExt.join(this.settings.baseUrl, 'dcde', path);
    let response: Response;
    let text: string;
    try {
      const headers = { 'Content-Type': 'application/json', 'X-Request-ID': newRequestId() };
      response = await ServerConnection.makeRequest(url, { ...init, headers }, this.settings);
      text = await response.text();
    } catch {
      throw new ApiError(
        {
          code: 'ServerUnreachable',
          message: 'Your server does not answer.',
          where: '',
          remedy: 'The panel goes on trying. If it stays so, look whether your server still runs.',
          retry: true
        },
        0
      );
    }
    const answer = parse(text);
    if (!response.ok) {
      throw new ApiError(problemIn(answer, response.status), response.status);
    }
    return answer as T;
  }
}

/** A request id: it goes along to the runner, the broker and the job, and stands in all their logs. */
export function newRequestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return 'q' + Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
}

function parse(text: string): unknown {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function problemIn(answer: unknown, status: number): IProblem {
  const error = (answer as { error?: Partial<IProblem> } | null)?.error;
  return {
    code: error?.code ?? `Http${status}`,
    message: error?.message ?? `The server answered ${status}.`,
    where: error?.where ?? '',
    remedy: error?.remedy ?? '',
    retry: error?.retry ?? status === 503
  };
}
