// Keeps the voice of the speech in the player on the server.

import { request } from "./api.js";
import { byId, setText, show } from "./dom.js";

let generation = ""; // of the speech in the player; "" when the server holds none

// offer shows the form for what has just been spoken.
export function offer(of) {
  generation = of ?? "";
  byId("voice-keeper").hidden = generation === "";
  byId("voice-keeper").open = false;
  show(byId("voice-error"), "");
}

// start listens to the form; kept gets the id of a new voice.
export function start(kept) {
  byId("voice-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = byId("voice-name").value.trim();
    show(byId("voice-error"), "");
    try {
      const voice = await (await request("/v1/audio/voices", { method: "POST", json: JSON.stringify({ name, generation }) })).json();
      byId("voice-name").value = "";
      byId("voice-keeper").open = false;
      await kept(voice.id);
      setText(byId("speak-status"), `The voice ${voice.name} is kept and chosen.`);
      byId("voice").focus();
    } catch (error) {
      show(byId("voice-error"), error.message);
    }
  });
}
