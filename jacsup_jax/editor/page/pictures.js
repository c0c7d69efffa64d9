// What is drawn: pictures on canvases, and rows of them.

// From so many pixels of a side on a picture is smoothed when it is enlarged.
const SMOOTH_FROM = 128;

export function draw(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.classList.toggle('pixelated', bitmap.width < SMOOTH_FROM);
  }
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
}

export function clear(canvas) {
  canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
}

// Draws part `number` of `count` that stand side by side.
export function drawPart(canvas, bitmap, number, count) {
  const width = bitmap.width / count;
  canvas.width = width;
  canvas.height = bitmap.height;
  canvas.classList.toggle('pixelated', width < SMOOTH_FROM);
  canvas
    .getContext('2d')
    .drawImage(
      bitmap, number * width, 0, width, bitmap.height, 0, 0, width,
      bitmap.height,
    );
}

export function download(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    // Once the browser has begun with it.
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, 'image/png');
}
