import * as React from 'react';
import { useId } from './hooks';

interface ITabs<T extends string> {
  label: string;
  tabs: readonly { name: T; title: string; count?: number }[];
  selected: T;
  onSelect: (name: T) => void;
}

/** A tablist after the ARIA practices: one tab stop, arrow keys, Home and End; the panels stay as they were left. */
export function Tabs<T extends string>(props: React.PropsWithChildren<ITabs<T>>): JSX.Element {
  const { label, tabs, selected, onSelect, children } = props;
  const id = useId('tab');
  const list = React.useRef<HTMLDivElement>(null);
  const go = (index: number) => {
    const tab = tabs[(index + tabs.length) % tabs.length];
    onSelect(tab.name);
    list.current?.querySelector<HTMLElement>(`[data-tab="${tab.name}"]`)?.focus();
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const at = tabs.findIndex(tab => tab.name === selected);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      go(to);
    }
  };
  return (
    <>
      <div className="dcde-Tabs" role="tablist" aria-label={label} ref={list} onKeyDown={onKeyDown}>
        {tabs.map(tab => (
          <button
            key={tab.name}
            type="button"
            role="tab"
            id={`${id}-${tab.name}`}
            aria-controls={`${id}-${tab.name}-panel`}
            aria-selected={tab.name === selected}
            tabIndex={tab.name === selected ? 0 : -1}
            data-tab={tab.name}
            data-testid={`dcde-tab-${tab.name}`}
            onClick={() => onSelect(tab.name)}
          >
            {tab.title}
            {tab.count ? <span className="dcde-Tabs-count">{tab.count}</span> : null}
          </button>
        ))}
      </div>
      {React.Children.map(children, (child, index) => (
        <div
          className="dcde-TabPanel"
          role="tabpanel"
          id={`${id}-${tabs[index].name}-panel`}
          aria-labelledby={`${id}-${tabs[index].name}`}
          hidden={tabs[index].name !== selected}
          data-testid={`dcde-panel-${tabs[index].name}`}
        >
          {child}
        </div>
      ))}
    </>
  );
}
