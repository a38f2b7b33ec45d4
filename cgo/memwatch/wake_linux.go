package memwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stalls of 15 % tell. Without CAP_SYS_RESOURCE the kernel takes windows of whole multiples of 2 s only. It overwrites
// the last byte it is given, hence the zero.
var stallTriggers = []string{"some 150000 1000000\x00", "some 300000 2000000\x00"} // stalled and window, µs

// Wake implements Waker with what this system has: triggers on the PSI files of the machine and of the own v2 cgroup,
// inotify on the event counters of the v2 cgroups up to the root, and in v1 memory.pressure_level and
// memory.oom_control of the same. The last two need the right to write to the cgroup.
func (s *Source) Wake(ctx context.Context, notify func(cause string), missing func(err error)) {
	l, err := newListener()
	if err != nil {
		missing(err)
		return
	}
	defer l.close()
	if err := s.listenTo(l); err != nil {
		missing(err)
	}
	if len(l.watches) == 0 {
		return
	}
	// The listener may close only after the function has run, lest it writes to a descriptor of somebody else.
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(stopped); l.stop() })
	defer func() {
		if !stop() {
			<-stopped
		}
	}()
	if err := l.run(notify); err != nil {
		missing(err)
	}
}

// listenTo adds everything there is. The error names what there is not, but is no reason to stop.
func (s *Source) listenTo(l *listener) error {
	all := []error{l.addStall("/proc/pressure/memory", s.path("/proc/pressure/memory"))}
	groups, err := s.groups()
	all = append(all, err)
	var refused [3]bool // by version: what is forbidden in one group is so in those above
	add := func(g group, err error) {
		// The root has no such files, and groups that are not there are above a container.
		if err != nil && !errors.Is(err, unix.ENOENT) && !refused[g.version] {
			refused[g.version] = true
			all = append(all, err)
		}
	}
	for _, g := range groups {
		if g.version == 1 {
			for _, name := range []string{"memory.pressure_level medium", "memory.oom_control"} {
				file, level, _ := strings.Cut(name, " ")
				add(g, l.addControl(path.Join(g.dir, file), s.path(g.dir, file), level))
			}
			continue
		}
		if g.depth == 0 {
			file := path.Join(g.dir, "memory.pressure")
			add(g, l.addStall(file, s.path(file)))
		}
		file := s.eventsFile(g)
		add(g, l.addCounters(file, s.path(file)))
	}
	return errors.Join(all...)
}

// A listener waits for several files at once. Its descriptors are not Go's os.File: the runtime's own poll of a PSI
// file would take the event away from ours.
type listener struct {
	poll, stopper, notices int // epoll, eventfd, inotify (-1 for none yet)
	watches                []*watch
	counters               map[int32]string // inotify's watch to the file's name
}

// A watch is a descriptor in the poll; also holds further ones that must stay open with it.
type watch struct {
	fd    int
	also  []int
	cause string // empty for inotify, which knows by itself
	drain bool   // read it to silence it
}

func newListener() (*listener, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	stopper, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(poll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &listener{poll: poll, stopper: stopper, notices: -1, counters: make(map[int32]string)}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(stopper)}
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, stopper, &event); err != nil {
		l.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

func (l *listener) close() {
	for _, w := range l.watches {
		w.close()
	}
	_ = unix.Close(l.stopper)
	_ = unix.Close(l.poll)
}

func (w *watch) close() {
	for _, fd := range append(w.also, w.fd) {
		_ = unix.Close(fd) // nothing was written that could be lost
	}
}

func (l *listener) stop() { _, _ = unix.Write(l.stopper, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (l *listener) add(w *watch, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(w.fd)}
	if err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, w.fd, &event); err != nil {
		w.close()
		return fmt.Errorf("epoll %s: %w", w.cause, err)
	}
	l.watches = append(l.watches, w)
	return nil
}

// addStall sets a trigger on a PSI file. It lives as long as the descriptor.
func (l *listener) addStall(name, file string) error {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	for _, trigger := range stallTriggers {
		if _, err = unix.Write(fd, []byte(trigger)); err == nil {
			return l.add(&watch{fd: fd, cause: name}, unix.EPOLLPRI)
		}
	}
	_ = unix.Close(fd)
	return fmt.Errorf("set a trigger on %s: %w", name, err)
}

// addCounters asks for changes of a v2 group's event counters.
func (l *listener) addCounters(name, file string) error {
	if l.notices < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
		if err := l.add(&watch{fd: fd, drain: true}, unix.EPOLLIN); err != nil {
			return err
		}
		l.notices = fd
	}
	id, err := unix.InotifyAddWatch(l.notices, file, unix.IN_MODIFY)
	if err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	l.counters[int32(id)] = name
	return nil
}

// addControl asks a v1 group to tell when its memory is at a pressure level, or out.
func (l *listener) addControl(name, file, level string) error {
	source, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(source)
	control, err := unix.Open(path.Join(path.Dir(file), "cgroup.event_control"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open cgroup.event_control beside %s: %w", name, err)
	}
	defer unix.Close(control)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if _, err := unix.Write(control, fmt.Appendf(nil, "%d %d %s", fd, source, level)); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("ask for events of %s: %w", name, err)
	}
	return l.add(&watch{fd: fd, cause: name, drain: true}, unix.EPOLLIN)
}

// run calls notify for each event until stop is called. It also ends when all files are gone.
func (l *listener) run(notify func(cause string)) error {
	events := make([]unix.EpollEvent, 16)
	for len(l.watches) > 0 {
		n, err := unix.EpollWait(l.poll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:n] {
			if int(e.Fd) == l.stopper {
				return nil
			}
			i := slices.IndexFunc(l.watches, func(w *watch) bool { return w.fd == int(e.Fd) })
			l.tell(l.watches[i], notify)
			if e.Events&unix.EPOLLERR != 0 { // the cgroup is gone, and would report so for ever
				l.watches[i].close()
				l.watches = slices.Delete(l.watches, i, i+1)
			}
		}
	}
	return nil
}

func (l *listener) tell(w *watch, notify func(cause string)) {
	buffer := make([]byte, 4096)
	n := 0
	if w.drain {
		n, _ = unix.Read(w.fd, buffer) // nothing to read is nothing to tell apart
	}
	if w.cause != "" {
		notify(w.cause)
		return
	}
	for b := buffer[:max(0, n)]; len(b) >= unix.SizeofInotifyEvent; { // watch, mask, cookie, length, name
		id, mask, length := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		if name, ok := l.counters[int32(id)]; ok && mask&unix.IN_MODIFY != 0 {
			notify(name)
		}
		b = b[min(len(b), unix.SizeofInotifyEvent+int(length)):]
	}
}
