import * as React from 'react';
import { asProblem } from '../api';
import { duration, moment } from '../format';
import { IProblem, IRun, IStep } from '../types';
import { Confirm } from './dialog';
import { Graph } from './graph';
import { useModel, useNow } from './hooks';
import { Button, Hint, Notice, StateMark } from './pieces';
import { Gallery } from './pictures';
import { StepView } from './step';

const LIVE = ['waiting', 'running'];

/** One run: its graph, the step that is looked at, and the pictures of all steps. */
export function RunView({ id }: { id: string }): JSX.Element {
  const model = useModel();
  const run = model.run(id);
  const [chosen, choose] = React.useState<string | null>(null);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  React.useEffect(() => {
    model.refreshRun(id).catch(error => setProblem(asProblem(error)));
  }, [model, id]);
  const back = (
    <Button kind="quiet" className="dcde-Back" testid="dcde-run-back" onClick={() => model.show({ run: null })}>
      ‹ All runs
    </Button>
  );
  if (!run) {
    return (
      <div>
        {back}
        {problem ? <Notice problem={problem} /> : <Hint>The run is being read …</Hint>}
      </div>
    );
  }
  const step = run.steps.find(item => item.id === chosen) ?? current(run);
  return (
    <article className="dcde-Run" data-testid="dcde-run-open" data-run={run.id} data-state={run.state}>
      {back}
      <RunHead run={run} onProblem={setProblem} />
      {problem && <Notice problem={problem} />}
      {step ? (
        <>
          <Graph steps={run.steps} selected={step.id} onSelect={choose} />
          <StepView key={`${step.id} ${step.attempt}`} run={run} step={step} onStay={() => choose(step.id)} />
          <Gallery run={run} step={step} />
        </>
      ) : (
        <Hint>The steps are being read …</Hint>
      )}
    </article>
  );
}

/** The step that matters most at the moment: one that failed, one at work, or the last that has begun. */
export function current(run: IRun): IStep | undefined {
  const find = (...states: string[]) => run.steps.find(step => states.includes(step.state));
  const done = run.steps.filter(step => step.state === 'succeeded');
  return (
    find('failed', 'unknown') ??
    find('running', 'queued', 'moving') ??
    (run.state === 'succeeded' ? done[done.length - 1] : find('waiting', 'cancelled')) ??
    run.steps[0]
  );
}

function RunHead({ run, onProblem }: { run: IRun; onProblem: (problem: IProblem | null) => void }): JSX.Element {
  const model = useModel();
  const live = LIVE.includes(run.state);
  const now = useNow(live);
  const [asked, ask] = React.useState<'runs.cancel' | 'runs.resume' | null>(null);
  const [busy, setBusy] = React.useState(false);
  const act = async (op: 'runs.cancel' | 'runs.resume') => {
    setBusy(true);
    onProblem(null);
    try {
      await model.actOnRun(op, run.id);
    } catch (error) {
      onProblem(asProblem(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <header className="dcde-Run-head">
      <div className="dcde-Row-head">
        <h3>
          {run.title} <span className="dcde-quiet">{run.id}</span>
        </h3>
        <StateMark state={run.state} />
      </div>
      <p className="dcde-quiet">
        {run.project} · {moment(run.created)} ·{' '}
        <span className="dcde-whole">{duration((run.ended ?? now) - run.created)}</span>
      </p>
      {run.reason && <p className="dcde-Run-reason">{run.reason}</p>}
      <div className="dcde-Actions">
        {live && (
          <Button testid="dcde-run-cancel" disabled={busy} onClick={() => ask('runs.cancel')}>
            Cancel run
          </Button>
        )}
        {(run.state === 'failed' || run.state === 'cancelled') && (
          <Button kind="primary" testid="dcde-run-resume" disabled={busy} onClick={() => ask('runs.resume')}>
            Resume run
          </Button>
        )}
      </div>
      {asked && (
        <Confirm
          title={asked === 'runs.cancel' ? 'Cancel this run?' : 'Resume this run?'}
          text={
            asked === 'runs.cancel'
              ? 'Its jobs at the sites are ended. Steps that have succeeded keep their results, and the run can be resumed.'
              : 'Steps that have succeeded are not done again; the others begin anew.'
          }
          action={asked === 'runs.cancel' ? 'Cancel run' : 'Resume run'}
          danger={asked === 'runs.cancel'}
          onConfirm={() => void act(asked)}
          onClose={() => ask(null)}
        />
      )}
    </header>
  );
}
