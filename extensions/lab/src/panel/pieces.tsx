/** Small things that several views use. Every text from outside is a text node; nothing here sets HTML. */

import * as React from 'react';
import { percent } from '../format';
import { IProblem } from '../types';

type Shape = 'wait' | 'move' | 'queue' | 'run' | 'good' | 'bad' | 'stop' | 'ask' | 'off';

const SHAPES: Record<string, Shape> = {
  waiting: 'wait',
  moving: 'move',
  queued: 'queue',
  running: 'run',
  connecting: 'run',
  succeeded: 'good',
  done: 'good',
  up: 'good',
  failed: 'bad',
  refused: 'bad',
  lost: 'ask',
  unknown: 'ask',
  cancelled: 'stop',
  unavailable: 'off'
};

const WORDS: Record<string, string> = {
  up: 'connected',
  lost: 'connection lost',
  unavailable: 'not available',
  queued: 'in the queue',
  moving: 'moving data',
  unknown: 'not seen at the moment'
};

const DRAWN: Record<Shape, JSX.Element> = {
  wait: <circle cx="8" cy="8" r="5.2" className="dcde-line" strokeDasharray="2.4 2.4" />,
  move: <path className="dcde-line" d="M2.5 5.5h8.5m-3-3 3 3-3 3M13.5 10.5H5m3-3-3 3 3 3" />,
  queue: <path className="dcde-line" d="M3 4h10M3 8h10M3 12h6" />,
  run: <path className="dcde-line dcde-turning" d="M8 2.6a5.4 5.4 0 1 1-5.4 5.4" />,
  good: (
    <>
      <circle cx="8" cy="8" r="6.6" />
      <path className="dcde-cut" d="m4.9 8.2 2.2 2.2 4-4.4" />
    </>
  ),
  bad: (
    <>
      <circle cx="8" cy="8" r="6.6" />
      <path className="dcde-cut" d="m5.6 5.6 4.8 4.8m0-4.8-4.8 4.8" />
    </>
  ),
  stop: (
    <>
      <circle cx="8" cy="8" r="6.6" />
      <path className="dcde-cut" d="M5 8h6" />
    </>
  ),
  ask: (
    <>
      <path d="M8 1.6 15 14H1z" />
      <path className="dcde-cut" d="M8 6v4m0 1.4v.6" />
    </>
  ),
  off: <path className="dcde-line" d="M8 2.4a5.6 5.6 0 1 0 0 11.2A5.6 5.6 0 0 0 8 2.4M4 12l8-8" />
};

export function wordOf(state: string): string {
  return WORDS[state] ?? state;
}

/** The picture of a state, to be used beside its word, or within another SVG. */
export function StateIcon({ state, x, y }: { state: string; x?: number; y?: number }): JSX.Element {
  const shape = SHAPES[state] ?? 'ask';
  return (
    <svg className={`dcde-StateIcon dcde-mod-${shape}`} viewBox="0 0 16 16" width="14" height="14" x={x} y={y} aria-hidden="true">
      {DRAWN[shape]}
    </svg>
  );
}

export function StateMark({ state }: { state: string }): JSX.Element {
  return (
    <span className="dcde-StateMark" data-state={state}>
      <StateIcon state={state} />
      <span>{wordOf(state)}</span>
    </span>
  );
}

interface IButton extends React.ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: 'primary' | 'danger' | 'plain' | 'quiet';
  testid?: string;
}

export function Button({ kind = 'plain', testid, className = '', ...rest }: IButton): JSX.Element {
  return <button type="button" className={`dcde-Button dcde-mod-${kind} ${className}`} data-testid={testid} {...rest} />;
}

/** A text as a sentence: errors of programs often begin small and end without a full stop. */
export function sentence(text: string, large = true): string {
  const begun = large ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(begun) || !begun ? begun : `${begun}.`;
}

interface INotice {
  problem: IProblem;
  kind?: 'error' | 'warning';
  onRetry?: () => void;
  testid?: string;
}

/** What failed, where, what can be done; and a button where trying again can help. */
export function Notice({ problem, kind = 'error', onRetry, testid }: INotice): JSX.Element {
  return (
    <div className={`dcde-Notice dcde-mod-${kind}`} role={kind === 'error' ? 'alert' : 'status'} data-testid={testid ?? 'dcde-notice'}>
      <StateIcon state={kind === 'error' ? 'failed' : 'lost'} />
      <div>
        <p>
          {problem.where && <span className="dcde-where">{problem.where}: </span>}
          {sentence(problem.message, !problem.where)}
        </p>
        {problem.remedy && <p className="dcde-remedy">{sentence(problem.remedy)}</p>}
        {onRetry && <Button onClick={onRetry}>Try again</Button>}
      </div>
    </div>
  );
}

export function Hint({ children }: React.PropsWithChildren<unknown>): JSX.Element {
  return <p className="dcde-Hint">{children}</p>;
}

/** How far something is; without a fraction it only shows that something goes on. */
export function Progress({ fraction, label }: { fraction: number | null | undefined; label: string }): JSX.Element {
  const known = fraction !== null && fraction !== undefined;
  const value = known ? Math.min(1, Math.max(0, fraction)) : 0;
  return (
    <div
      className={`dcde-Progress${known ? '' : ' dcde-mod-unknown'}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={known ? Math.round(value * 100) : undefined}
      aria-valuetext={known ? percent(value) : 'going on'}
    >
      <div className="dcde-Progress-bar" style={{ width: known ? `${value * 100}%` : undefined }} />
    </div>
  );
}

/** A name and its value, for lists of facts; nothing when there is no value. */
export function Fact({ name, children }: React.PropsWithChildren<{ name: string }>): JSX.Element | null {
  if (children === null || children === undefined || children === '' || children === false) {
    return null;
  }
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}
