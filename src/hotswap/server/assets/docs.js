"use strict";

// The data plane listens on another port and answers no other origin, so a browser could not
// send it a request from here: only the control API can be tried out.
const readDataPlaneOnly = () => ({
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: (original, system) => (...args) =>
          !system.specSelectors.url().endsWith("/openapi-data.json") && original(...args),
      },
    },
  },
});

SwaggerUIBundle({
  dom_id: "#docs",
  urls: [
    { url: "/openapi.json", name: "Control API" },
    { url: "/openapi-data.json", name: "Data plane (predictions)" },
  ],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [SwaggerUIBundle.plugins.DownloadUrl, readDataPlaneOnly],
  layout: "StandaloneLayout",
  deepLinking: true,
  validatorUrl: null,
  queryConfigEnabled: false,
});
