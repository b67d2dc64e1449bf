import * as React from 'react';
import { useId } from './hooks';
import { Button } from './pieces';

interface IDialog {
  title: string;
  onClose: () => void;
  wide?: boolean;
  testid: string;
  actions?: React.ReactNode;
}

/**
 * A modal dialog: the browser's own, which keeps the focus inside, closes with Escape and gives the focus back to where it was.
 */
export function Dialog({ title, onClose, wide, testid, actions, children }: React.PropsWithChildren<IDialog>): JSX.Element {
  const dialog = React.useRef<HTMLDialogElement>(null);
  const heading = useId('dialog');
  React.useEffect(() => {
    const element = dialog.current;
    const before = document.activeElement as HTMLElement | null;
    if (element?.showModal) {
      element.showModal();
    } else {
      element?.setAttribute('open', '');
    }
    return () => {
      element?.close?.();
      before?.focus?.();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      className={`dcde-Dialog${wide ? ' dcde-mod-wide' : ''}`}
      aria-labelledby={heading}
      data-testid={testid}
      onCancel={event => {
        event.preventDefault();
        onClose();
      }}
      onKeyDown={event => {
        // Keys typed here are not JupyterLab's shortcuts.
        event.stopPropagation();
        if (event.key === 'Escape') {
          event.preventDefault();
          onClose();
        }
      }}
      onMouseDown={event => {
        if (event.target === dialog.current) {
          onClose();
        }
      }}
    >
      <div className="dcde-Dialog-content">
        <header>
          <h3 id={heading}>{title}</h3>
          <button type="button" className="dcde-Dialog-close" aria-label="Close" onClick={onClose}>
            <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
              <path className="dcde-line" d="m4 4 8 8m0-8-8 8" />
            </svg>
          </button>
        </header>
        <div className="dcde-Dialog-body">{children}</div>
        {actions && <footer>{actions}</footer>}
      </div>
    </dialog>
  );
}

interface IConfirm {
  title: string;
  text: string;
  action: string;
  danger?: boolean;
  onConfirm: () => void;
  onClose: () => void;
}

/** Ask before something is done that is not easily undone. The focus is on the way back. */
export function Confirm({ title, text, action, danger, onConfirm, onClose }: IConfirm): JSX.Element {
  return (
    <Dialog
      title={title}
      onClose={onClose}
      testid="dcde-confirm"
      actions={
        <>
          <Button onClick={onClose} autoFocus>
            Go back
          </Button>
          <Button
            kind={danger ? 'danger' : 'primary'}
            testid="dcde-confirm-yes"
            onClick={() => {
              onClose();
              onConfirm();
            }}
          >
            {action}
          </Button>
        </>
      }
    >
      <p>{text}</p>
    </Dialog>
  );
}
