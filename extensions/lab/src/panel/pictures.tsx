import * as React from 'react';
import { IRun, IStep } from '../types';
import { Dialog } from './dialog';
import { useModel, useNow } from './hooks';
import { Button } from './pieces';

const AGAIN_S = 10;

interface IPicture {
  key: string;
  url: string;
  title: string;
  step: string;
  stepTitle: string;
}

/** The pictures of a run as they appear: those of the step that is looked at, then the newest first. Each can be enlarged. */
export function Gallery({ run, step: looked }: { run: IRun; step: IStep }): JSX.Element | null {
  const model = useModel();
  const [large, setLarge] = React.useState<number | null>(null);
  const now = useNow(run.steps.some(step => step.state === 'running' && (step.pictures ?? []).length > 0));
  const others = run.steps.filter(step => step.id !== looked.id).reverse();
  const pictures: IPicture[] = [looked, ...others].flatMap(step =>
    (step.pictures ?? []).map(picture => ({
      key: `${step.id}/${picture.name}/${step.attempt}`,
      url: `${model.api.pictureUrl(run.id, step.id, picture.name, step.attempt)}&as=${versionOf(step, now)}`,
      title: picture.title,
      step: step.id,
      stepTitle: step.title
    }))
  );
  if (pictures.length === 0) {
    return null;
  }
  const shown = large === null ? null : pictures[Math.min(large, pictures.length - 1)];
  return (
    <section className="dcde-Gallery" aria-label="Pictures">
      <h4>Pictures</h4>
      {pictures.map((picture, index) => (
        <figure key={picture.key}>
          <button
            type="button"
            aria-label={`Enlarge: ${picture.title}`}
            data-testid="dcde-picture"
            data-step={picture.step}
            onClick={() => setLarge(index)}
          >
            <Image picture={picture} />
          </button>
          <figcaption>
            {picture.title} <span className="dcde-quiet">{picture.stepTitle}</span>
          </figcaption>
        </figure>
      ))}
      {shown && (
        <Dialog title={shown.title} wide testid="dcde-picture-large" onClose={() => setLarge(null)}>
          <Image picture={shown} />
          {pictures.length > 1 && (
            <div className="dcde-Actions">
              <Button onClick={() => setLarge(((large ?? 0) + pictures.length - 1) % pictures.length)}>‹ Previous</Button>
              <Button onClick={() => setLarge(((large ?? 0) + 1) % pictures.length)}>Next ›</Button>
            </div>
          )}
        </Dialog>
      )}
    </section>
  );
}

/** Pictures of a step that is at work change; they are asked for again now and then, which costs little when they are the same. */
function versionOf(step: IStep, now: number): string {
  return step.state === 'running' ? String(Math.floor(now / AGAIN_S)) : step.state;
}

/** A picture that is asked for again a few times when it cannot be had, since the site may be away for a moment. */
function Image({ picture }: { picture: IPicture }): JSX.Element {
  const [tries, setTries] = React.useState(0);
  const [failed, setFailed] = React.useState(false);
  React.useEffect(() => {
    setTries(0);
    setFailed(false);
  }, [picture.url]);
  React.useEffect(() => {
    if (!failed || tries >= 5) {
      return;
    }
    const timer = window.setTimeout(
      () => {
        setTries(tries + 1);
        setFailed(false);
      },
      1500 * (tries + 1)
    );
    return () => window.clearTimeout(timer);
  }, [failed, tries]);
  if (failed) {
    return <span className="dcde-Gallery-missing">The picture cannot be shown at the moment.</span>;
  }
  return (
    <img
      src={tries ? `${picture.url}&try=${tries}` : picture.url}
      alt={`${picture.title}, ${picture.stepTitle}`}
      draggable={false}
      onError={() => setFailed(true)}
    />
  );
}
