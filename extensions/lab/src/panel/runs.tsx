import * as React from 'react';
import { moment } from '../format';
import { progress } from '../merge';
import { IRun } from '../types';
import { useModel } from './hooks';
import { Hint, Progress, StateMark, Button } from './pieces';
import { RunView } from './run';

/** The list of runs, or the one that is open. */
export function RunsView(): JSX.Element {
  const model = useModel();
  const open = model.view.run;
  if (open !== null) {
    return <RunView key={open} id={open} />;
  }
  if (model.runs === null) {
    return <Hint>Your runs are being read …</Hint>;
  }
  if (model.runs.length === 0) {
    return (
      <div className="dcde-Empty" data-testid="dcde-runs-empty">
        <p>You have no runs yet.</p>
        <Button kind="primary" onClick={() => model.show({ tab: 'templates' })}>
          Choose a template
        </Button>
      </div>
    );
  }
  return (
    <ul className="dcde-List" aria-label="Runs, newest first" data-testid="dcde-runs">
      {model.runs.map(run => (
        <li key={run.id}>
          <RunRow run={run} onOpen={() => model.show({ run: run.id })} />
        </li>
      ))}
    </ul>
  );
}

function RunRow({ run, onOpen }: { run: IRun; onOpen: () => void }): JSX.Element {
  const { done, all } = progress(run);
  return (
    <button
      type="button"
      className="dcde-Row"
      onClick={onOpen}
      data-testid="dcde-run"
      data-run={run.id}
      data-state={run.state}
    >
      <span className="dcde-Row-head">
        <strong>{run.title}</strong>
        <StateMark state={run.state} />
      </span>
      <span className="dcde-Row-line">
        <span>{run.project}</span>
        <span>{moment(run.created)}</span>
      </span>
      {run.reason && <span className="dcde-Row-line dcde-mod-wrap">{run.reason}</span>}
      {run.state === 'running' && all > 0 && (
        <Progress fraction={done / all} label={`${done} of ${all} steps have succeeded`} />
      )}
    </button>
  );
}
