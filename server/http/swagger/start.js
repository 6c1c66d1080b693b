// Shows the OpenAPI document beside this page; asks nothing of any other host, its validator included.

// Swagger UI's own player asks for the address again, with GET: ours plays what has come.
const playWhatCame = ({ React }) => ({
  wrapComponents: {
    responseBody: (ResponseBody) => (props) => {
      const audio = props.content instanceof Blob && props.contentType.startsWith("audio/");
      const src = React.useMemo(() => audio && URL.createObjectURL(props.content), [audio, props.content]);
      if (!audio) return React.createElement(ResponseBody, props);
      return React.createElement("p", null,
        React.createElement("audio", { controls: true, src }),
        React.createElement("a", { href: src, download: "speech" }, "Download the audio"));
    },
  },
});

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [playWhatCame],
});
