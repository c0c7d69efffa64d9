// A canvas to draw a digit on, by mouse, pen or finger.

const WIDTH = 22; // of strokes, in pixels of the canvas

// Calls `onDraw(blob)` after every stroke, with a PNG of all of them.
export function listenToSketch(canvas, clear, onDraw) {
  const context = canvas.getContext('2d');
  Object.assign(context, {lineWidth: WIDTH, lineCap: 'round', lineJoin: 'round'});
  const wipe = () => {
    context.fillStyle = '#000';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = '#fff';
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...place(event));
    context.lineTo(...place(event)); // A dot, if the pointer does not move.
    context.stroke();
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    for (const own of event.getCoalescedEvents?.() ?? [event]) {
      context.lineTo(...place(own));
    }
    context.stroke();
  });
  canvas.addEventListener('lostpointercapture', () => canvas.toBlob(onDraw));
  clear.addEventListener('click', wipe);
  wipe();
}
