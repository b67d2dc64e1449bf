import { ReactWidget } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import * as React from 'react';
import { dcdeIcon } from './icon';
import { Model } from './model';

/** What is not needed before the panel is opened is loaded when it is opened. */
const Loaded = React.lazy(async () => {
  const module = await import('./panel/panel');
  const Whole = ({ model }: { model: Model }) => (
    <module.Boundary>
      <module.Panel model={model} />
    </module.Boundary>
  );
  return { default: Whole };
});

export const PANEL_ID = 'dcde-panel';

/** The side panel. It asks nothing of the server before it is shown for the first time. */
export class PanelWidget extends ReactWidget {
  constructor(readonly model: Model) {
    super();
    this.id = PANEL_ID;
    this.addClass('dcde-Panel');
    this.title.icon = dcdeIcon;
    this.title.caption = 'DCDE: sites, data and runs';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'DCDE');
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.model.dispose();
      super.dispose();
    }
  }

  protected onBeforeShow(message: Message): void {
    super.onBeforeShow(message);
    this._open();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    if (this.isVisible) {
      this._open();
    }
  }

  protected render(): JSX.Element {
    if (!this._opened) {
      return <></>;
    }
    return (
      <React.Suspense fallback={<div className="dcde-Empty" aria-busy="true" />}>
        <Loaded model={this.model} />
      </React.Suspense>
    );
  }

  private _open(): void {
    if (!this._opened) {
      this._opened = true;
      this.model.start();
      this.update();
    }
  }

  private _opened = false;
}
