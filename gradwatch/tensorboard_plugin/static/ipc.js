// TensorBoard's messages to a plugin's frame. Its library for them is not published; this is what it does.

const VERSION = 'experimental';

/** Call `listener` whenever TensorBoard has read new data. Outside of TensorBoard nothing ever comes. */
export function onDataReloaded(listener) {
  if (window.parent === window) return;
  const {port1: port, port2: theirs} = new MessageChannel();
  port.onmessage = ({data}) => {
    const {type, id, isReply} = JSON.parse(data);
    if (isReply) return;
    if (type === `${VERSION}.DataReloaded`) listener();
    port.postMessage(JSON.stringify({type, id, payload: null, error: null, isReply: true}));
  };
  window.parent.postMessage(`${VERSION}.bootstrap`, '*', [theirs]);
}
