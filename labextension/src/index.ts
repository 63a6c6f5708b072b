/**
 * The JupyterLab plugin: wiring only.
 */

import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { CacheApi } from './api';
import { StatusItem } from './item';
import { KernelWatch } from './kernelwatch';
import { CacheModel } from './model';

const PLUGIN_ID = 'jupyter-hf-cache:plugin';

/*
 * Everything is optional: Notebook 7 has no status bar, and its file browser page no notebooks. There the
 * plugin does nothing, and asks nothing of the server.
 */
const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN_ID,
  description:
    'Shows the Hugging Face cache of the Jupyter server in the status bar.',
  autoStart: true,
  optional: [IStatusBar, INotebookTracker, ITranslator, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    statusBar: IStatusBar | null,
    tracker: INotebookTracker | null,
    translator: ITranslator | null,
    settingRegistry: ISettingRegistry | null
  ) => {
    if (!statusBar || !tracker) {
      return;
    }
    const trans = (translator ?? nullTranslator).load('jupyter_hf_cache');
    const api = new CacheApi(app.serviceManager.serverSettings);
    const item = new StatusItem({
      model: new CacheModel(api),
      watch: new KernelWatch(tracker),
      trans,
      restartKernel: () => {
        void app.commands.execute('notebook:restart-kernel');
      }
    });
    statusBar.registerStatusItem(PLUGIN_ID, {
      item,
      align: 'right',
      rank: 30
    });
    if (settingRegistry) {
      void followSettings(settingRegistry, item);
    }
  }
};

/** Hide the item where its setting says so. */
async function followSettings(
  registry: ISettingRegistry,
  item: StatusItem
): Promise<void> {
  const settings = await registry.load(PLUGIN_ID);
  const apply = () =>
    item.setHidden(settings.get('showStatusItem').composite === false);
  settings.changed.connect(apply);
  apply();
}

export default plugin;
