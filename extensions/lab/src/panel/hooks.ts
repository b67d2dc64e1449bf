import { ISignal } from '@lumino/signaling';
import * as React from 'react';
import { IApi } from '../api';
import { FolderModel } from '../folder';
import { Model } from '../model';

export const ModelContext = React.createContext<Model | null>(null);

/** Render again whenever a signal is emitted. */
export function useSignal<T, U>(signal: ISignal<T, U>): void {
  const [, again] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    const slot = () => again();
    signal.connect(slot);
    return () => {
      signal.disconnect(slot);
    };
  }, [signal]);
}

/** The panel's model; the component is rendered again when it changes. */
export function useModel(): Model {
  const model = React.useContext(ModelContext);
  if (!model) {
    throw new Error('There is no model around this component.');
  }
  useSignal(model.changed);
  return model;
}

/** The present, in seconds; it goes on while `ticking`. */
export function useNow(ticking: boolean): number {
  const [now, setNow] = React.useState(() => Date.now() / 1000);
  React.useEffect(() => {
    if (!ticking) {
      return;
    }
    setNow(Date.now() / 1000);
    const timer = window.setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => window.clearInterval(timer);
  }, [ticking]);
  return now;
}

/** A folder that this component looks at. */
export function useFolder(api: IApi): FolderModel {
  const [folder] = React.useState(() => new FolderModel(api));
  useSignal(folder.changed);
  return folder;
}

/** An id for labels that is different for each use of a component. */
export function useId(name: string): string {
  const [id] = React.useState(() => `dcde-${name}-${(counter += 1)}`);
  return id;
}

let counter = 0;
