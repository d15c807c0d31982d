// Where answers come from: TensorBoard's server. A report in a file brings them along, see embedded.js.

/** A sentence that the reader can use. */
export class Unanswered extends Error {}

/** Answers of TensorBoard's server. Addresses are relative: TensorBoard sets the base, whatever its path prefix. */
export class Server {
  notice = null;

  async get(name, parameters = {}) {
    const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== ''));
    let response;
    try {
      response = await fetch(`./${name}?${query}`);
    } catch {
      throw new Unanswered('TensorBoard does not answer: has it been stopped?');
    }
    const answer = await response.json().catch(() => null);
    if (response.ok && answer !== null) return answer;
    throw new Unanswered(answer?.error ?? `TensorBoard answered ${response.status} to ${name}`);
  }
}
