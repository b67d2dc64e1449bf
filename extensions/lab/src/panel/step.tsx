import * as React from 'react';
import { problemOf } from '../api';
import { duration, figure, moment, size } from '../format';
import { IRun, IStep } from '../types';
import { useModel, useNow } from './hooks';
import { LogView } from './log';
import { Fact, Notice, Progress, StateMark } from './pieces';

const BUSY = ['queued', 'running', 'moving', 'unknown'];

interface IStepView {
  run: IRun;
  step: IStep;
  /** Somebody looks closer at this step: the view must not go on to the next one by itself. */
  onStay: () => void;
}

/** Everything about one step, except its pictures, which stand together for the whole run. */
export function StepView({ run, step, onStay }: IStepView): JSX.Element {
  const model = useModel();
  const busy = BUSY.includes(step.state);
  const now = useNow(busy);
  const problem = problemOf(step.error);
  const metrics = Object.entries(step.metrics ?? {});
  const began = step.started !== null || step.job_id !== null;
  const [logOpen, openLog] = React.useState(false);
  return (
    <section className="dcde-Step" aria-label={step.title} data-testid="dcde-step-open" data-step={step.id} data-state={step.state}>
      <div className="dcde-Row-head">
        <h4>{step.title}</h4>
        <StateMark state={step.state} />
      </div>
      {step.state === 'running' && <Progress fraction={step.fraction} label={`Progress of ${step.title}`} />}
      {step.why && (
        <p className="dcde-Step-why" data-testid="dcde-step-why">
          {step.why}
        </p>
      )}
      {problem && <Notice problem={{ ...problem, where: problem.where === step.id ? '' : problem.where }} />}
      {(step.problems ?? []).length > 0 && (
        <ul className="dcde-Problems" aria-label="Problems">
          {(step.problems ?? []).map((text, index) => (
            <li key={index}>{text}</li>
          ))}
        </ul>
      )}
      <dl className="dcde-Facts">
        <Fact name="Site">{model.siteTitle(step.site)}</Fact>
        <Fact name="Job">{[step.job_id, step.node && `on ${step.node}`].filter(Boolean).join(' ')}</Fact>
        <Fact name="Waited">{step.queued_at && step.started ? duration(step.started - step.queued_at) : null}</Fact>
        <Fact name="Time">{time(step, now)}</Fact>
        <Fact name="Moved">{step.bytes_moved ? size(step.bytes_moved) : null}</Fact>
        <Fact name="Attempt">{step.attempt > 1 ? step.attempt : null}</Fact>
        {metrics.map(([name, metric]) => (
          <Fact key={name} name={metric.title ?? name}>
            <span data-metric={name}>{[figure(metric.value), metric.unit].filter(Boolean).join(' ')}</span>
          </Fact>
        ))}
      </dl>
      {began && (
        <details
          className="dcde-Fold"
          onToggle={event => {
            openLog(event.currentTarget.open);
            if (event.currentTarget.open) {
              onStay();
            }
          }}
        >
          <summary data-testid="dcde-log-toggle">Log</summary>
          {logOpen && <LogView run={run.id} step={step} live={busy} />}
        </details>
      )}
    </section>
  );
}

function time(step: IStep, now: number): string | null {
  if (step.started === null) {
    return step.queued_at ? `in the queue for ${duration(now - step.queued_at)}` : null;
  }
  const span = duration((step.ended ?? now) - step.started);
  return step.ended ? `${span}, ended ${moment(step.ended)}` : span;
}
