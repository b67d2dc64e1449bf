import { LabIcon } from '@jupyterlab/ui-components';
import svg from '../style/dcde.svg';

export const dcdeIcon = new LabIcon({ name: 'dcde:icon', svgstr: svg });
