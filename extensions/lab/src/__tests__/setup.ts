/** What JupyterLab's parts expect of a browser and jsdom does not have. */

import { cleanup } from '@testing-library/react';
import { afterEach } from 'vitest';

class NoDrag extends Event {}
class NoResize {
  observe(): void {
    /* nothing is ever laid out */
  }
  unobserve(): void {
    /* nothing is ever laid out */
  }
  disconnect(): void {
    /* nothing is ever laid out */
  }
}

Object.assign(globalThis, { DragEvent: NoDrag, ResizeObserver: NoResize });
Object.assign(window, {
  matchMedia: () => ({ matches: false, addEventListener: () => undefined, removeEventListener: () => undefined })
});
globalThis.CSS ??= { escape: (text: string) => text } as unknown as typeof CSS;

afterEach(cleanup);
