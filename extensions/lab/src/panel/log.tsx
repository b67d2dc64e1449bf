import * as React from 'react';
import { asProblem } from '../api';
import { IProblem, IStep } from '../types';
import { useId, useModel } from './hooks';
import { Hint, Notice } from './pieces';

type Stream = 'stdout' | 'stderr';

const EVERY = 2000;
/** So many characters stay in view; of longer logs the end is shown. */
const KEPT = 200000;

interface IPiece {
  text: string;
  offset: number;
}

/** The log of a step. It grows while the step is at work, and follows the end unless somebody has scrolled away from it. */
export function LogView({ run, step, live }: { run: string; step: IStep; live: boolean }): JSX.Element {
  const model = useModel();
  const name = useId('log');
  const [stream, setStream] = React.useState<Stream>('stdout');
  const [follow, setFollow] = React.useState(true);
  const { text, read, problem } = useLog(run, step.id, stream, live, model.api.call.bind(model.api));
  const box = React.useRef<HTMLPreElement>(null);
  React.useLayoutEffect(() => {
    if (follow && box.current) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [text, follow]);
  return (
    <div className="dcde-Log">
      <div className="dcde-Log-bar">
        {(['stdout', 'stderr'] as const).map(item => (
          <label key={item}>
            <input type="radio" name={name} checked={stream === item} onChange={() => setStream(item)} />
            {item === 'stdout' ? 'output' : 'errors'}
          </label>
        ))}
        <label className="dcde-Log-follow">
          <input type="checkbox" checked={follow} onChange={event => setFollow(event.target.checked)} />
          follow
        </label>
      </div>
      {problem && <Notice problem={problem} kind="warning" />}
      {read && !text ? (
        <Hint>Nothing has been written yet.</Hint>
      ) : (
        <pre
          ref={box}
          tabIndex={0}
          aria-label={`Log of ${step.title}`}
          data-testid="dcde-log"
          onScroll={event => {
            const view = event.currentTarget;
            const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 8;
            if (!atEnd && follow) {
              setFollow(false);
            }
          }}
        >
          {text}
        </pre>
      )}
    </div>
  );
}

type Call = <T>(op: string, args?: object) => Promise<T>;

function useLog(
  run: string,
  step: string,
  stream: Stream,
  live: boolean,
  call: Call
): { text: string; read: boolean; problem: IProblem | null } {
  const [text, setText] = React.useState('');
  const [read, setRead] = React.useState(false);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  React.useEffect(() => {
    setText('');
    setRead(false);
  }, [run, step, stream]);
  const offset = React.useRef({ of: '', at: 0 });
  React.useEffect(() => {
    let ended = false;
    let timer = 0;
    const key = `${run}/${step}/${stream}`;
    if (offset.current.of !== key) {
      offset.current = { of: key, at: 0 };
    }
    const readOn = async () => {
      try {
        const piece = await call<IPiece>('runs.log', { run, step, stream, offset: offset.current.at });
        if (ended) {
          return;
        }
        const more = piece.text.length > 0 && piece.offset !== offset.current.at;
        offset.current.at = piece.offset;
        setText(old => (old + piece.text).slice(-KEPT));
        setRead(true);
        setProblem(null);
        if (more) {
          timer = window.setTimeout(readOn, 50);
          return;
        }
      } catch (error) {
        if (ended) {
          return;
        }
        setProblem(asProblem(error));
      }
      if (live) {
        timer = window.setTimeout(readOn, EVERY);
      }
    };
    void readOn();
    return () => {
      ended = true;
      window.clearTimeout(timer);
    };
  }, [run, step, stream, live]);
  return { text, read, problem };
}
