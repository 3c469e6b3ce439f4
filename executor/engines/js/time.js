// The time of one run. It stands still while code runs, and jumps to the next timer when the run
// has nothing else to do. Called before the hardening; its value makes what scripts see of time.
//
// Not promised: that anything takes as long as it says. A run that waits an hour is done at once.
((caps, fault, watch) => {
  "use strict";

  const { TIMERS, TIME_MS } = caps;
  const HostDate = Date;
  const dateText = Date.prototype.toString;
  const { apply, construct } = Reflect;
  const { setPrototypeOf } = Object;

  // HTML: who sets timers from timers more than five deep waits at least this long.
  const NESTED = 5;
  const NESTED_MS = 4;

  function dateOf(run) {
    function Date(...parts) {
      const now = run.now + run.elapsed;
      if (new.target === undefined) return apply(dateText, new HostDate(now), []);
      return construct(HostDate, parts.length === 0 ? [now] : parts, new.target);
    }
    Date.prototype = HostDate.prototype;
    Date.now = () => run.now + run.elapsed;
    // The one that the hardening left: it has `UTC` and `parse`, and no clock.
    return setPrototypeOf(Date, globalThis.Date);
  }

  const performanceOf = (run) => ({
    now: () => run.elapsed,
    timeOrigin: run.now,
    toJSON: () => ({ timeOrigin: run.now }),
  });

  // Behind every timer that is due no later, so that equals fire in the order they were set.
  function insert(timers, timer) {
    let low = 0;
    let high = timers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (timers[middle].due <= timer.due) low = middle + 1;
      else high = middle;
    }
    timers.splice(low, 0, timer);
  }

  function arm(run, timer) {
    run.timersSet += 1;
    if (run.timersSet > TIMERS) throw new RangeError(`a run may set at most ${TIMERS} timers`);
    timer.level = run.timerLevel + 1;
    timer.due = run.elapsed + (timer.level > NESTED ? Math.max(timer.delay, NESTED_MS) : timer.delay);
    insert(run.timers, timer);
  }

  function set(run, task, delay, values, repeats) {
    if (run.over) throw new Error("the run is over");
    if (typeof task !== "function") throw new TypeError("a timer needs a function; code cannot be made from strings");
    run.timerId += 1;
    arm(run, { id: run.timerId, task, delay: Math.max(delay | 0, 0), values, repeats, due: 0, level: 0 });
    return run.timerId;
  }

  const clear = (run) => (id) => {
    const number = id | 0;
    if (run.firing !== undefined && run.firing.id === number) run.firing.repeats = false;
    const at = run.timers.findIndex((timer) => timer.id === number);
    if (at >= 0) run.timers.splice(at, 1);
  };

  const setTimeoutOf = (run) => function setTimeout(task, delay, ...values) {
    return set(run, task, delay, values, false);
  };
  const setIntervalOf = (run) => function setInterval(task, delay, ...values) {
    return set(run, task, delay, values, true);
  };

  // Jump to the next timer and call it. False when there is none.
  function advance(run) {
    const timer = run.timers.shift();
    if (timer === undefined) return false;
    if (timer.due > TIME_MS) {
      fault(run, new RangeError(`a run may wait at most ${TIME_MS / 60_000} minutes; let a schedule start it again`));
      return true;
    }
    run.elapsed = Math.max(run.elapsed, timer.due);
    run.timerLevel = timer.level;
    run.firing = timer;
    try {
      watch(run, apply(timer.task, run.made.globalThis, timer.values));
      if (timer.repeats) arm(run, timer);
    } catch (error) {
      fault(run, error);
    }
    run.firing = undefined;
    run.timerLevel = 0;
    return true;
  }

  return { dateOf, performanceOf, set, clear, setTimeoutOf, setIntervalOf, advance };
})
