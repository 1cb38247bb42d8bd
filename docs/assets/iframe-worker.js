// Browsers start no workers for pages opened from a folder. The search then works in a hidden frame
// instead, which answers as a worker does. (The name tells the site's generator to load no other one.)
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      const { port1: ours, port2: theirs } = new MessageChannel(); // copies and queues, as a worker does
      this.port = ours;
      ours.onmessage = (event) => this.onmessage?.(event);
      scope.postMessage = (data) => theirs.postMessage(data);
      const script = scope.document.createElement("script");
      script.onerror = (event) => this.onerror?.(event);
      script.onload = () =>
        (theirs.onmessage = ({ data }) =>
          scope.dispatchEvent(new scope.MessageEvent("message", { data })));
      script.src = url;
      scope.document.body.append(script);
    }
    postMessage(data) {
      this.port.postMessage(data);
    }
    terminate() {
      this.port.close();
      this.frame.remove();
    }
  };
}
