import * as React from 'react';
import { asProblem, problemOf } from '../api';
import { duration, rate, size } from '../format';
import { Model } from '../model';
import { IProblem, ITransfer } from '../types';
import { useModel } from './hooks';
import { Button, Notice, Progress, StateMark } from './pieces';

const SHOWN = 8;

/** The copies between sites, newest first. */
export function Transfers({ transfers }: { transfers: readonly ITransfer[] }): JSX.Element | null {
  const [all, showAll] = React.useState(false);
  if (transfers.length === 0) {
    return null;
  }
  const sorted = [...transfers].sort((a, b) => order(b) - order(a));
  return (
    <section className="dcde-Transfers" aria-label="Copies">
      <h4>Copies</h4>
      <ul className="dcde-List" data-testid="dcde-transfers">
        {(all ? sorted : sorted.slice(0, SHOWN)).map(transfer => (
          <li key={transfer.id}>
            <TransferRow transfer={transfer} />
          </li>
        ))}
      </ul>
      {!all && sorted.length > SHOWN && (
        <Button kind="quiet" onClick={() => showAll(true)}>
          Show all {sorted.length}
        </Button>
      )}
    </section>
  );
}

/** Those that go on stand above those that have ended. */
function order(transfer: ITransfer): number {
  return transfer.ended ?? (transfer.started ?? 1e11) + 1e11;
}

/** `bnl-sdcc:movies` as `BNL SDCC: movies`. */
function place(model: Model, text: string): string {
  const at = text.indexOf(':');
  return at < 0 ? text : `${model.siteTitle(text.slice(0, at))}: ${text.slice(at + 1) || 'my folder'}`;
}

function TransferRow({ transfer }: { transfer: ITransfer }): JSX.Element {
  const model = useModel();
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const live = transfer.state === 'moving' || transfer.state === 'waiting';
  const total = transfer.bytes_total;
  const fraction = total ? transfer.bytes_done / total : null;
  const left = live && total && transfer.rate ? (total - transfer.bytes_done) / transfer.rate : null;
  const error = problem ?? problemOf(transfer.error);
  const facts = [
    total ? `${size(transfer.bytes_done)} of ${size(total)}` : size(transfer.bytes_done),
    live ? rate(transfer.rate) : '',
    left === null ? '' : `${duration(left)} left`,
    transfer.state === 'done' && transfer.started && transfer.ended ? duration(transfer.ended - transfer.started) : ''
  ];
  return (
    <div className="dcde-Transfer" data-testid="dcde-transfer" data-transfer={transfer.id} data-state={transfer.state}>
      <div className="dcde-Row-head">
        <span className="dcde-Transfer-what" title={`${transfer.source} → ${transfer.target}`}>
          {place(model, transfer.source)} <span aria-label="to">→</span> {place(model, transfer.target)}
        </span>
        <StateMark state={transfer.state} />
      </div>
      {live && <Progress fraction={fraction} label={`Copy of ${transfer.source}`} />}
      <div className="dcde-Row-line">
        <span>{facts.filter(Boolean).join(' · ')}</span>
        {live && (
          <Button
            kind="quiet"
            testid="dcde-transfer-cancel"
            aria-label={`Cancel the copy of ${transfer.source}`}
            onClick={() => model.cancelTransfer(transfer.id).catch(reason => setProblem(asProblem(reason)))}
          >
            Cancel
          </Button>
        )}
      </div>
      {error && <Notice problem={error} />}
    </div>
  );
}
