const path = require('path');

const jestJupyterLab = require('@jupyterlab/testutils/lib/jest-config');

const base = jestJupyterLab(__dirname);

module.exports = {
  ...base,
  rootDir: __dirname,
  roots: ['<rootDir>/src'],
  reporters: ['default'],
  collectCoverageFrom: ['src/**/*.{ts,tsx}', '!src/__tests__/**'],
  coverageReporters: ['text-summary'],
  moduleDirectories: ['node_modules', '<rootDir>/../node_modules'],
  testRegex: 'src/.*/.*\\.spec\\.tsx?$',
  transform: {
    ...base.transform,
    '^.+\\.tsx?$': ['ts-jest/legacy', { tsconfig: path.join(__dirname, 'tsconfig.test.json') }]
  }
};
