import { ISignal, Signal } from '@lumino/signaling';
import { IApi } from './api';
import { IEvent } from './types';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;

/** The event socket, which connects again by itself for as long as it is not disposed of. */
export class EventStream {
  constructor(private api: IApi) {}

  /** What the runner tells. */
  get event(): ISignal<this, IEvent> {
    return this._event;
  }

  /** Whether the socket is open. */
  get connectedChanged(): ISignal<this, boolean> {
    return this._connectedChanged;
  }

  get connected(): boolean {
    return this._connected;
  }

  start(): void {
    if (this._socket || this._timer !== null || this._disposed) {
      return;
    }
    let socket: WebSocket;
    try {
      socket = this.api.openSocket();
    } catch {
      this._again();
      return;
    }
    this._socket = socket;
    socket.onopen = () => {
      this._pause = FIRST_PAUSE;
      this._set(true);
    };
    socket.onmessage = message => {
      const event = readEvent(message.data);
      if (event) {
        this._event.emit(event);
      }
    };
    socket.onclose = () => {
      this._socket = null;
      this._set(false);
      this._again();
    };
  }

  dispose(): void {
    this._disposed = true;
    if (this._timer !== null) {
      window.clearTimeout(this._timer);
    }
    const socket = this._socket;
    this._socket = null;
    if (socket) {
      socket.onclose = null;
      socket.close();
    }
    Signal.clearData(this);
  }

  private _again(): void {
    if (this._disposed) {
      return;
    }
    const pause = this._pause * (0.7 + 0.6 * Math.random());
    this._pause = Math.min(LONGEST_PAUSE, this._pause * 2);
    this._timer = window.setTimeout(() => {
      this._timer = null;
      this.start();
    }, pause);
  }

  private _set(connected: boolean): void {
    if (connected !== this._connected) {
      this._connected = connected;
      this._connectedChanged.emit(connected);
    }
  }

  private _socket: WebSocket | null = null;
  private _timer: number | null = null;
  private _pause = FIRST_PAUSE;
  private _connected = false;
  private _disposed = false;
  private _event = new Signal<this, IEvent>(this);
  private _connectedChanged = new Signal<this, boolean>(this);
}

function readEvent(data: unknown): IEvent | null {
  try {
    const event = JSON.parse(String(data)) as IEvent | null;
    return event && typeof event.type === 'string' ? event : null;
  } catch {
    return null;
  }
}
