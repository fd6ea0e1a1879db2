"use strict";
for (const box of document.querySelectorAll("input.outlines")) {
  box.addEventListener("change", () => box.closest("section").classList.toggle("bare", !box.checked));
}

const bytesOf = (id) => {
  const text = atob(document.getElementById(id).textContent);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
};
const unpacked = (id) => new Response(
  new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip")));

const startViewer = async () => {
  const choice = document.getElementById("volume");
  const state = document.getElementById("state");
  const canvas = document.getElementById("head");
  if (!document.createElement("canvas").getContext("webgl2")) {
    state.textContent = "This browser draws no WebGL 2; the pictures below show the same face.";
    return;
  }
  const program = document.createElement("script");
  program.textContent = await unpacked("niivue").text();
  document.head.append(program);

  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], show3Dcrosshair: false, isOrientCube: false, dragAndDropEnabled: false,
    loadingText: "", logLevel: "error", crosshairWidth: 0.5,
  });
  canvas.addEventListener("webglcontextlost", () => {
    state.textContent = "The browser has stopped drawing this view; load the page again.";
  });
  await viewer.attachToCanvas(canvas);
  viewer.opts.multiplanarShowRender = niivue.SHOW_RENDER.NEVER;

  // an opaque skin to look at from outside; plain greys, opaque too, to look inside
  const shades = { skin: [0, 165, 185, 200], inside: [0, 24, 110, 255] };
  for (const [name, grey] of Object.entries(shades)) {
    viewer.addColormap(name, { R: grey, G: grey, B: grey, A: [0, 60, 200, 255], I: [0, 22, 120, 255] });
  }
  viewer.setClipPlaneColor([0, 0, 0, 0]);
  const colour = (name) => viewer.setColormap(viewer.volumes[0].id, name);
  const turn = (azimuth, elevation) => {
    colour("skin");
    viewer.setSliceType(viewer.sliceTypeRender);
    viewer.setClipPlane([2, 0, 0]);
    viewer.setRenderAzimuthElevation(azimuth, elevation);
  };
  const cut = () => {
    colour("inside");
    viewer.setSliceType(viewer.sliceTypeRender);
    viewer.setClipPlane([0, 90, 0]);
    viewer.setRenderAzimuthElevation(270, 0);
  };
  const slices = () => {
    colour("gray");
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
  };
  const show = async () => {
    state.textContent = "Loading …";
    for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
    const content = await unpacked(`volume-${choice.value}`).arrayBuffer();
    await viewer.loadFromArrayBuffer(content, "head.nii");
    await viewer.setVolumeRenderIllumination(0.8);
    turn(180, 10);
    state.textContent = "";
    canvas.dataset.drawn = choice.value;
  };
  for (const button of document.querySelectorAll("[data-turn]")) {
    button.addEventListener("click", () => turn(...button.dataset.turn.split(",").map(Number)));
  }
  document.querySelector("[data-cut]").addEventListener("click", cut);
  document.querySelector("[data-slices]").addEventListener("click", slices);
  choice.addEventListener("change", show);
  await show();
};

if (document.getElementById("viewer")) {
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    startViewer().catch((error) => {
      document.getElementById("state").textContent = `The 3-D view could not be drawn: ${error.message}`;
      console.error(error);
    });
  }, { rootMargin: "200px" });
  seen.observe(document.getElementById("stage"));
}
