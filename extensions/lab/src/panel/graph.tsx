import * as React from 'react';
import { layout } from '../graph';
import { percent } from '../format';
import { IStep } from '../types';
import { useModel } from './hooks';
import { StateIcon, wordOf } from './pieces';

const SIZE = { width: 208, height: 40, gapX: 16, gapY: 18 };
const EDGE = 22;

interface IGraph {
  steps: readonly IStep[];
  selected: string;
  onSelect: (step: string) => void;
}

/** The steps of a run as a graph; the arrow keys go along it, and the step that is chosen is described below it. */
export function Graph({ steps, selected, onSelect }: IGraph): JSX.Element {
  const model = useModel();
  const shape = steps.map(step => `${step.id}<${step.after.join()}`).join(';');
  const placed = React.useMemo(() => layout(steps, SIZE), [shape]);
  const byId = new Map(steps.map(step => [step.id, step]));
  const element = React.useRef<SVGSVGElement>(null);
  const go = (event: React.KeyboardEvent) => {
    const at = steps.findIndex(step => step.id === selected);
    const way = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const to = way === undefined ? undefined : steps[at + way];
    if (to) {
      event.preventDefault();
      event.stopPropagation();
      onSelect(to.id);
      element.current?.querySelector<SVGElement>(`[data-step="${CSS.escape(to.id)}"]`)?.focus();
    }
  };
  return (
    <svg
      ref={element}
      className="dcde-Graph"
      viewBox={`-2 -2 ${placed.width + EDGE} ${placed.height + 4}`}
      style={{ maxWidth: placed.width + EDGE }}
      role="group"
      aria-label="Steps of the run"
      data-testid="dcde-graph"
      onKeyDown={go}
    >
      {placed.edges.map(edge => (
        <path
          key={`${edge.from}-${edge.to}`}
          className={`dcde-Graph-edge${byId.get(edge.from)?.state === 'succeeded' ? ' dcde-mod-done' : ''}`}
          d={edge.path}
        />
      ))}
      {placed.nodes.map(node => {
        const step = byId.get(node.id) as IStep;
        const site = model.siteTitle(step.site);
        const done = step.state === 'running' || step.state === 'moving' ? percent(step.fraction) : '';
        const note = [site, done || wordOf(step.state)].filter(Boolean).join(' · ');
        const choose = () => onSelect(step.id);
        return (
          <g
            key={node.id}
            className={`dcde-Graph-node${step.id === selected ? ' dcde-mod-selected' : ''}`}
            transform={`translate(${node.x},${node.y})`}
            role="button"
            tabIndex={step.id === selected ? 0 : -1}
            aria-pressed={step.id === selected}
            aria-label={`${step.title}: ${wordOf(step.state)}${site ? `, ${site}` : ''}`}
            data-testid="dcde-step"
            data-step={step.id}
            data-state={step.state}
            data-site={step.site ?? ''}
            onClick={choose}
            onKeyDown={event => {
              if (event.key === 'Enter' || event.key === ' ') {
                event.preventDefault();
                choose();
              }
            }}
          >
            <rect width={SIZE.width} height={SIZE.height} rx="4" />
            {step.state === 'running' && step.fraction !== null && (
              <rect className="dcde-Graph-fill" y={SIZE.height - 3} height="3" width={SIZE.width * Math.min(1, step.fraction)} />
            )}
            <StateIcon state={step.state} x={9} y={13} />
            <text x="31" y="17">
              {short(step.title, 27)}
            </text>
            <text x="31" y="31" className="dcde-Graph-note">
              {short(note, 31)}
            </text>
          </g>
        );
      })}
    </svg>
  );
}

function short(text: string, length: number): string {
  return text.length > length ? text.slice(0, length - 1) + '…' : text;
}
