// The speed: a slider, and the values that are wanted most.

import { byId } from "./dom.js";

const slider = byId("speed");
const presets = document.querySelectorAll("[data-speed]");

/** Show the speed, and which of the values it is. */
export function showSpeed() {
  byId("speed-shown").textContent = `${Number(slider.value)}×`;
  for (const preset of presets) {
    preset.setAttribute("aria-pressed", String(Number(preset.dataset.speed) === Number(slider.value)));
  }
}

function choose(value) {
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}

export function startSpeed() {
  for (const preset of presets) preset.addEventListener("click", () => choose(preset.dataset.speed));
  slider.addEventListener("dblclick", () => choose(1));
}
