// Shows this server's own openapi.json in Swagger UI, so that everything works as it is pre-filled.
'use strict';

(() => {
  const root = document.documentElement;
  // Where this server is, without a slash at the end: behind a proxy it may be under a path.
  const base = new URL('..', document.currentScript.src).href.replace(/\/$/, '');
  const isDev = root.dataset.dev === 'true';
  const KEY = 'kallima-token';
  const kept = isDev ? localStorage : sessionStorage;

  // Swagger UI's dark colours follow a class.
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const follow = () => root.classList.toggle('dark-mode', dark.matches);
  dark.addEventListener('change', follow);
  follow();

  // The token alone, should somebody paste the whole header.
  const alone = (text) => text.trim().replace(/^(?:authorization:\s*)?(?:bearer\s+)+/i, '');

  // `serve --dev` prints a link with the token in its fragment, which browsers never send. Other servers take none: a
  // link from a stranger could put the stranger's token here.
  const linked = isDev ? /^#token=(ab_[0-9A-Za-z]{48})$/.exec(location.hash) : null;
  if (linked) {
    kept.setItem(KEY, linked[1]);
    history.replaceState(null, '', location.pathname);
  }

  // Swagger UI fills in every example. What is optional is better left out: the example goes into the description.
  // So is that of a header which a receiver gets, and nobody enters.
  const leaveOut = (parameter, isReceived = false) => {
    const { required, example, schema } = parameter;
    if ((required && !isReceived) || example === undefined) return;
    delete parameter.example;
    if (schema.default === undefined) parameter.description = `${parameter.description}\n\nExample: \`${example}\``;
  };
  const operationsOf = (section) => Object.values(section).flatMap((item) => Object.values(item));
  const parametersOf = (section) => operationsOf(section).flatMap((operation) => operation.parameters ?? []);
  const prepare = (document) => {
    const received = new Set(parametersOf(document.webhooks).map(({ $ref }) => $ref?.split('/').pop()));
    document.info.description = document.info.description.replaceAll('https://api.example.com', base);
    for (const [name, parameter] of Object.entries(document.components.parameters)) {
      leaveOut(parameter, received.has(name));
    }
    for (const parameter of parametersOf(document.paths)) leaveOut(parameter);
    return document;
  };

  // An event type is what a receiver gets: there is nothing to try out.
  const isEventType = (props) => props.specPath.first() === 'webhooks';
  const reading = (Original) =>
    class extends Original {
      constructor(props, context) {
        super(props, context);
        if (isEventType(props)) this.state = { ...this.state, tryItOutEnabled: false };
      }

      mapStateToProps(state, props) {
        const mapped = super.mapStateToProps(state, props);
        return isEventType(props) ? { ...mapped, allowTryItOut: false } : mapped;
      }
    };
  const collapsed = (Original, { React }) => (props) =>
    React.createElement(
      'details',
      { className: 'event-types' },
      React.createElement('summary', null, 'Event types: what your service receives'),
      React.createElement(Original, props),
    );

  const plugin = () => ({
    statePlugins: {
      auth: {
        wrapActions: {
          authorize: (authorize) => (entered) => {
            const value = alone(entered.bearer.value ?? '');
            kept.setItem(KEY, value);
            return authorize({ ...entered, bearer: { ...entered.bearer, value } });
          },
          logout: (logout) => (names) => {
            kept.removeItem(KEY);
            return logout(names);
          },
        },
      },
    },
    wrapComponents: { OperationContainer: reading, Webhooks: collapsed },
  });

  const show = (document) => {
    const ui = SwaggerUIBundle({
      spec: document,
      dom_id: '#swagger-ui',
      layout: 'BaseLayout',
      deepLinking: true,
      tryItOutEnabled: true,
      persistAuthorization: false,
      displayRequestDuration: true,
      defaultModelsExpandDepth: 0,
      // Nothing is asked of another origin.
      validatorUrl: null,
      plugins: [plugin],
      onComplete: () => {
        const token = kept.getItem(KEY);
        if (token) ui.preauthorizeApiKey('bearer', token);
        root.dataset.ready = 'true';
      },
    });
  };

  const fail = (cause) => {
    const box = document.getElementById('swagger-ui');
    box.textContent = `The description of the API could not be loaded: ${cause.message}. Reload this page.`;
  };

  fetch(`${base}/openapi.json`)
    .then((response) => {
      if (!response.ok) throw new Error(`openapi.json was answered ${response.status}`);
      return response.json();
    })
    .then((document) => show(prepare(document)))
    .catch(fail);
})();
