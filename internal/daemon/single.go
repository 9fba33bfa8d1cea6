package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/apart"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// single is the process that serves one device.
type single struct {
	task      singleTask
	config    loop.Config
	files     descriptors
	requester requester
	stop      <-chan os.Signal // signals that end the server
	program   *confine.Program
	apart     *apart.Process // serves the requests; nil for this process
	whyAlone  error          // why there is no such process, if there should be one
}

// runSingle is the main function of that process.
func (p *Program) runSingle(args []string) int {
	signal.Ignore(unix.SIGPIPE) // a closed output must not end the server
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, endSignals()...)
	nameProcess()
	s := &single{stop: stop}
	var err error
	if s.files, err = receive(singleRole, args, &s.task); err != nil {
		report.Print(p.Err, rawname.Error(err), "")
		return report.ExitUsage
	}
	s.config = s.task.config()
	if s.task.Foreground {
		s.requester = &user{out: p.Out, errOut: p.Err, notify: s.files[notifyFile], json: s.task.JSON}
	} else {
		signal.Notify(stop, unix.SIGHUP) // the starter's terminal is not the server's
		s.requester = &starter{s.files[controlFile]}
	}
	if err := s.serve(); err != nil {
		return report.ExitFailed
	}
	return report.ExitDone
}

// serve serves a device until a signal, its removal or its failure. It reports or logs
// every error before it returns.
func (s *single) serve() (err error) {
	s.startApart()
	ctl, dev, err := s.attach()
	if err != nil {
		s.endApart()
		s.fail(s.describe(err))
		return err
	}
	log := s.logger(dev.ID())
	deaf, err := listenFor(dev)
	if err != nil {
		log.error("listen", err) // the device works, but cannot be merged or forked
	}
	err = errors.Join(s.use(dev, log), deaf(), dev.Close(), ctl.Close())
	if err != nil {
		log.error("ended", err)
		return err
	}
	log.info("ended")
	return nil
}

// use announces the device and serves it until the server has to end.
func (s *single) use(dev *loop.Device, log *logger) error {
	defer s.requester.Ending()
	status := dev.Status()
	if s.apart == nil {
		confine.ReserveProcessors(status.Queues) // a recovered device may have more queues
	}
	// The journal files an entry under the unit that the sender was in when it first wrote, so
	// that the first entry waits for the unit.
	inJournal := s.files[journalFile] != nil
	if !inJournal {
		s.logServing(log, &status)
	}
	if err := s.announce(wire.Device(&status)); err != nil {
		s.fail(err)
		return err
	}
	if inJournal {
		s.logServing(log, &status)
	}
	s.settle()
	e := &ending{dev: dev, id: status.ID, log: log, isClaimed: isClaimedInChild, writeBack: writeBackInChild}
	return e.wait(s.stop)
}

// logServing logs what is served, and what protects it less than usual.
func (s *single) logServing(log *logger, status *loop.Status) {
	for _, w := range s.task.Warnings {
		log.warn(w)
	}
	if s.whyAlone != nil {
		log.info("requests are served without a sandbox", logged("why", s.whyAlone.Error()))
	}
	log.info("serving", loggedDevice(status)...)
}

// fail reports to the requester why there is no device.
func (s *single) fail(err error) {
	s.requester.Failed(failure(err))
}

// announce reports to the requester that the device can be used. Its error does not
// matter for a recovered device, which already has users.
func (s *single) announce(device client.Device) error {
	pid := 0
	if s.apart != nil {
		pid = s.apart.Pid()
	}
	err := s.requester.Ready(device, pid)
	if s.task.Recover != nil {
		return nil
	}
	return err
}

// attach opens the driver and the device. It closes the files, which are not needed
// afterwards.
func (s *single) attach() (*ublk.Control, *loop.Device, error) {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return nil, nil, err
	}
	file, files := s.files[backingFile], s.tableFiles()
	dev, err := s.open(ctl, file, files)
	if err != nil {
		return nil, nil, errors.Join(err, ctl.Close())
	}
	if file != nil {
		files = append(files, file)
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, nil, errors.Join(err, dev.Close(), ctl.Close())
	}
	return ctl, dev, nil
}

// tableFiles returns the files of the task's tables, in order.
func (s *single) tableFiles() (files []*os.File) {
	for {
		f := s.files[fmt.Sprint(tableFile, len(files))]
		if f == nil {
			return files
		}
		files = append(files, f)
	}
}

// open makes the task's device, or takes it over.
func (s *single) open(ctl *ublk.Control, file *os.File, files []*os.File) (*loop.Device, error) {
	limit := transfer.MaxKeyBytes
	if s.config.Table != "" {
		limit = loop.MaxTableKeyBytes
	}
	key, err := receiveKey(s.files[keyFile], limit)
	if err != nil {
		return nil, err
	}
	if s.task.Recover != nil && s.config.Table != "" {
		return loop.RecoverTable(ctl, *s.task.Recover, files, loop.RecoverOptions{Key: key, Apart: s.loopApart()})
	}
	if s.task.Recover != nil {
		return loop.Recover(ctl, *s.task.Recover, file, loop.RecoverOptions{Key: key, Apart: s.loopApart()})
	}
	cfg := s.config
	cfg.Key = key
	if cfg.Table == "" {
		files = []*os.File{file}
	}
	return loop.AttachApart(ctl, files, cfg, s.loopApart())
}

// logger returns the server's log: the given file, in the foreground standard error,
// systemd's journal, or none.
func (s *single) logger(id uint32) *logger {
	file := s.files[logFile]
	switch {
	case file != nil:
		// A crash report also goes to the file.
		_ = debug.SetCrashOutput(file, debug.CrashOptions{})
		return newLogger(file, id)
	case s.task.Foreground:
		return newLogger(os.Stderr, id)
	}
	log := noLogger()
	if s.files[journalFile] != nil {
		log = newJournalLogger(s.files[journalFile], id)
	}
	if err := reportCrashes(loop.CrashPath(id), s.task.Recover != nil); err != nil {
		log.error("prepare the report of a crash", err)
	}
	return log
}

// maxReports bounds the reports of the servers that a device has had one after another.
const maxReports = 64 << 10

// reportCrashes makes Go's runtime write to a file why this program has crashed, because a server in
// the background has no standard error. The server of a recovered device keeps the reports of the
// servers before it.
func reportCrashes(path string, recovered bool) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // the runtime has a duplicate
	info, err := file.Stat()
	if err == nil && (!recovered || info.Size() >= maxReports) {
		err = file.Truncate(0)
	}
	return errors.Join(err, debug.SetCrashOutput(file, debug.CrashOptions{}))
}

// receiveKey reads the key, of at most limit bytes, from a descriptor. It returns nil without a descriptor.
func receiveKey(f *os.File, limit int) (*transfer.Secret, error) {
	if f == nil {
		return nil, nil
	}
	if err := confine.ForbidDumps(); err != nil {
		return nil, err
	}
	key, err := keysource.Read(f, limit)
	if err != nil {
		return nil, fmt.Errorf("receive the key: %w", err)
	}
	return key, f.Close()
}

// describe adds the failed operation and its object to an error.
func (s *single) describe(err error) error {
	if s.task.Recover != nil {
		return report.Name(err, "recover", ublk.BlockPath(*s.task.Recover))
	}
	return describeAdd(err, rawname.Name(s.task.Name, s.task.NameBytes), &s.config)
}

// describeAdd does the same for the error of making a device from a file.
func describeAdd(err error, file string, cfg *loop.Config) error {
	err = report.Name(err, "attach", file)
	switch {
	case cfg.ID != nil && errors.Is(err, unix.EEXIST):
		err = report.Name(err, "make", ublk.BlockPath(*cfg.ID))
		return &hint.Error{Err: err, Hint: "this number is taken; without {id} the device gets the first free number"}
	case cfg.ZeroCopy == loop.SwitchOn && errors.Is(err, ublk.ErrNotSupported):
		return &hint.Error{Err: err, Hint: "omit {zero_copy}; ublk-loop features shows what the kernel offers"}
	}
	return err
}
