// The live picture: JPEG files at once, WebRTC as soon as it shows something, and back where it stops.

const CONNECT = 6000; // milliseconds that WebRTC has to show a first frame
const ASK = 1500; // milliseconds without a frame until a whole picture is asked for
const GIVE_UP = 6000; // and until WebRTC is given up
const AGAIN = 30000; // and until it is tried again, twice as long after each time
const LAST = 480000;

export class Picture {
  // `send` takes a message, `say` how the picture comes, `came` that there is one.
  constructor(video, still, { send, say, came }) {
    Object.assign(this, { video, still, send, say, came });
    this.pen = still.getContext("2d", { alpha: false });
    this.connection = null;
    this.playing = false;
    this.moving = false;
    this.turn = 0; // counts beginnings and ends, so that what is left of an earlier one is known as such
    this.seen = 0;
    this.frames = 0;
    this.drawing = Promise.resolve();
    setInterval(() => this.watch(), 500);
    document.addEventListener("visibilitychange", () => { this.seen = performance.now(); });
  }

  start(rtc) {
    this.stop();
    this.reason = "";
    this.again = AGAIN;
    this.send({ type: "mjpeg", value: true });
    if (new URLSearchParams(location.search).has("mjpeg")) this.reason = "as the address asks";
    else if (!rtc) this.reason = "no WebRTC in this view";
    else if (!window.RTCPeerConnection) this.reason = "no WebRTC in this browser";
    else this.connect().catch((error) => this.fallBack(error.message));
  }

  stop() {
    const connection = this.connection;
    this.turn += 1;
    this.connection = null;
    this.playing = false;
    if (connection) connection.close();
    this.video.srcObject = null;
  }

  async connect() {
    const connection = new RTCPeerConnection({ iceServers: [] });
    this.connection = connection;
    this.seen = performance.now();
    const { receiver } = connection.addTransceiver("video", { direction: "recvonly" });
    // Late frames are worth nothing: do not smooth the stream by holding it back.
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0;
    connection.addEventListener("track", ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {});
      this.await(connection);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (connection.connectionState === "failed" && connection === this.connection) {
        this.fallBack("WebRTC did not get through");
      }
    });
    await connection.setLocalDescription(await connection.createOffer());
    await gathered(connection);
    if (connection === this.connection) {
      this.send({ type: "offer", value: connection.localDescription.sdp });
    }
  }

  async answer({ sdp, codec }) {
    if (!this.connection) return;
    this.codec = codec === "H264" ? "H.264" : codec;
    try {
      await this.connection.setRemoteDescription({ type: "answer", sdp });
    } catch (error) {
      this.fallBack(error.message);
    }
  }

  // The first frame takes the JPEG pictures' place.
  await(connection) {
    const { video } = this;
    const shown = () => {
      if (connection !== this.connection || this.playing) return;
      this.playing = true;
      this.seen = performance.now();
      this.frames = 0;
      this.send({ type: "mjpeg", value: false });
      this.show(video, `WebRTC, ${this.codec}`);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
    else video.addEventListener("playing", shown, { once: true });
  }

  fallBack(reason) {
    if (!this.connection) return;
    this.stop();
    this.reason = reason;
    this.send({ type: "mjpeg", value: true });
    const { turn } = this;
    setTimeout(() => {
      if (turn === this.turn) this.connect().catch((error) => this.fallBack(error.message));
    }, this.again);
    this.again = Math.min(2 * this.again, LAST);
  }

  // `moving` says whether the source gives frames at present: one that stands still is no fault.
  watch() {
    if (!this.connection || document.visibilityState !== "visible") return;
    const now = performance.now();
    if (!this.playing) {
      if (now - this.seen > CONNECT) this.fallBack("WebRTC showed nothing in time");
      return;
    }
    const frames = this.video.getVideoPlaybackQuality().totalVideoFrames;
    if (frames !== this.frames || !this.moving) {
      this.frames = frames;
      this.seen = now;
    } else if (now - this.seen > GIVE_UP) {
      this.fallBack("WebRTC stood still");
    } else if (now - this.seen > ASK) {
      this.send({ type: "key" });
    }
  }

  // A number in four bytes and a JPEG file; drawn in the order in which they come.
  draw(data) {
    const serial = new DataView(data).getUint32(0), { turn } = this;
    this.drawing = this.drawing.then(async () => {
      try {
        const picture = await createImageBitmap(new Blob([data.slice(4)], { type: "image/jpeg" }));
        const { still } = this;
        if (still.width !== picture.width || still.height !== picture.height) {
          still.width = picture.width;
          still.height = picture.height;
        }
        this.pen.drawImage(picture, 0, 0);
        picture.close();
        if (!this.playing && turn === this.turn) this.show(still, this.reason ? `MJPEG, ${this.reason}` : "MJPEG");
      } finally {
        this.send({ type: "shown", value: serial });
      }
    }).catch((error) => this.say(`A picture could not be shown: ${error.message}`));
  }

  show(element, how) {
    this.came();
    if (!element.hidden && this.how === how) return;
    this.how = how;
    this.video.hidden = element !== this.video;
    this.still.hidden = element !== this.still;
    this.say(how);
  }
}

function gathered(connection) {
  return new Promise((done) => {
    const look = () => { if (connection.iceGatheringState === "complete") done(); };
    connection.addEventListener("icegatheringstatechange", look);
    setTimeout(done, 1000);
    look();
  });
}
