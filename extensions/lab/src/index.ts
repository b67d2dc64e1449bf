import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { Api } from './api';
import { dcdeIcon } from './icon';
import { IView, Model, Tab } from './model';
import { PANEL_ID, PanelWidget } from './widget';

const CATEGORY = 'DCDE';

/** The names of the commands; `dcde:open` takes `{tab, run, template, place}`, all of which may be left out. */
export const commands = {
  open: 'dcde:open',
  firstLook: 'dcde:first-look',
  runs: 'dcde:runs',
  templates: 'dcde:templates',
  sites: 'dcde:sites',
  data: 'dcde:data'
};

const TABS: Record<Tab, string> = {
  runs: 'Show My Runs',
  templates: 'Launch a Template',
  sites: 'Show Sites',
  data: 'Browse Data at the Sites'
};

const noArguments = { args: { type: 'object', properties: {} } } as const;

/** The side panel, its commands, and its cards in the launcher. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: '@dcde/lab:panel',
  description: 'The DCDE side panel: sites, data, templates and runs.',
  autoStart: true,
  optional: [ILayoutRestorer, ICommandPalette, ILauncher],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null
  ) => {
    const panel = new PanelWidget(new Model(new Api(app.serviceManager.serverSettings)));
    app.shell.add(panel, 'left', { rank: 150 });
    restorer?.add(panel, PANEL_ID);

    const open = (view: Partial<IView>) => {
      app.shell.activateById(panel.id);
      panel.model.show(view);
    };
    app.commands.addCommand(commands.open, {
      label: args => (args.isLauncher ? 'DCDE panel' : 'Show DCDE Panel'),
      caption: 'Your sites, data, templates and runs',
      icon: dcdeIcon,
      describedBy: {
        args: {
          type: 'object',
          properties: {
            tab: { type: 'string', enum: Object.keys(TABS) },
            run: { type: 'string' },
            template: { type: 'string' },
            place: { type: 'string' }
          }
        }
      },
      execute: args => open(viewOf(args))
    });
    app.commands.addCommand(commands.firstLook, {
      label: args => (args.isLauncher ? 'First look' : 'Launch a First Look'),
      caption: 'From movies to 2D class averages at three laboratories',
      icon: dcdeIcon,
      describedBy: noArguments,
      execute: () => open({ tab: 'templates', template: 'first-look' })
    });
    for (const [tab, label] of Object.entries(TABS)) {
      app.commands.addCommand(`dcde:${tab}`, {
        label,
        describedBy: noArguments,
        execute: () => open({ tab: tab as Tab })
      });
    }
    Object.values(commands).forEach(command => palette?.addItem({ command, category: CATEGORY }));
    [commands.firstLook, commands.open].forEach((command, rank) =>
      launcher?.add({ command, category: CATEGORY, rank, args: { isLauncher: true } })
    );
  }
};

function viewOf(args: Record<string, unknown>): Partial<IView> {
  const view: Partial<IView> = {};
  if (typeof args.tab === 'string' && args.tab in TABS) {
    view.tab = args.tab as Tab;
  }
  for (const key of ['run', 'template', 'place'] as const) {
    if (typeof args[key] === 'string') {
      view[key] = args[key] as string;
    }
  }
  return view;
}

export default plugin;
