/** How what comes in is joined with what is known. */

import { IRun, IStep } from './types';

/** The list with `item` in the place of the one of the same key, or at its end. */
export function replace<T>(list: readonly T[], item: T, key: (item: T) => string): readonly T[] {
  const at = list.findIndex(other => key(other) === key(item));
  return at < 0 ? [...list, item] : [...list.slice(0, at), item, ...list.slice(at + 1)];
}

export function newestFirst(runs: readonly IRun[]): readonly IRun[] {
  return [...runs].sort((a, b) => b.created - a.created);
}

/** A run as it is now; a list may leave the steps out, and then those that are known stay. */
export function mergeRun(old: IRun | undefined, run: IRun): IRun {
  const steps = run.steps?.length ? run.steps : (old?.steps ?? []);
  return { ...old, ...run, steps };
}

export function mergeStep(run: IRun, step: IStep): IRun {
  return { ...run, steps: run.steps.map(old => (old.id === step.id ? { ...old, ...step } : old)) };
}

/** A sentence about what a step has come to, or nothing when its state is the same as before. */
export function announcementOf(run: IRun, old: IStep, step: IStep, site: string): string {
  if (old.state === step.state) {
    return '';
  }
  return `${run.title}, ${step.title}: ${step.state}${site ? ` at ${site}` : ''}.`;
}

/** How many steps have succeeded, of how many. */
export function progress(run: IRun): { done: number; all: number } {
  return { done: run.steps.filter(step => step.state === 'succeeded').length, all: run.steps.length };
}
