package daemon

import (
	"encoding/base64"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/systemd"
	"github.com/ublk-loop/ublk-loop/loop"
)

// logger is a server's log. It uses zap's core without package zap, because zap links an
// HTTP server into each process, which takes 1.5 MiB of its memory.
type logger struct {
	core zapcore.Core
}

// newLogger returns the log of one device. Each line has the device's id.
func newLogger(file *os.File, id uint32) *logger { return newServerLogger(file).of(id) }

// of returns a log whose lines have the device's id.
func (l *logger) of(id uint32) *logger {
	return &logger{l.core.With([]zapcore.Field{{Key: "id", Type: zapcore.Uint32Type, Integer: int64(id)}})}
}

// newServerLogger returns a log that is readable text on a terminal, and JSON lines
// elsewhere.
func newServerLogger(file *os.File) *logger {
	config := zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", MessageKey: "msg", LineEnding: zapcore.DefaultLineEnding,
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
	}
	encoder := zapcore.NewJSONEncoder(config)
	if report.IsTerminal(file) {
		encoder = zapcore.NewConsoleEncoder(config)
	}
	// Each line is one write, so that several servers can share a file.
	return &logger{zapcore.NewCore(encoder, zapcore.Lock(file), zapcore.InfoLevel)}
}

// noLogger returns a log that discards all lines.
func noLogger() *logger { return &logger{zapcore.NewNopCore()} }

func (l *logger) info(message string, fields ...zapcore.Field) {
	l.write(zapcore.InfoLevel, message, fields)
}

func (l *logger) warn(message string) { l.write(zapcore.WarnLevel, message, nil) }

func (l *logger) error(message string, err error) {
	l.write(zapcore.ErrorLevel, message, []zapcore.Field{logged("error", rawname.Error(err))})
}

// write drops its own error, because there is no other place to report it. The message can have names of files,
// and what a process in a sandbox has reported. A terminal shows it as it is.
func (l *logger) write(level zapcore.Level, message string, fields []zapcore.Field) {
	_ = l.core.Write(zapcore.Entry{Level: level, Time: time.Now(), Message: report.OneLine(message)}, fields)
}

// logged returns a field of a log line.
func logged(key, value string) zapcore.Field {
	return zapcore.Field{Key: key, Type: zapcore.StringType, String: value}
}

// loggedDevice returns the fields that say what a device is.
func loggedDevice(s *loop.Status) []zapcore.Field {
	fields := []zapcore.Field{logged("device", s.Device), logged("file", s.Object())}
	if bytes := rawname.Bytes(s.Object()); bytes != nil {
		fields = append(fields, logged("file_bytes", base64.StdEncoding.EncodeToString(bytes)))
	}
	return append(fields, logged("buffer_mode", s.BufferMode), loggedBool("direct_io", s.DirectIO))
}

func loggedBool(key string, value bool) zapcore.Field {
	f := zapcore.Field{Key: key, Type: zapcore.BoolType}
	if value {
		f.Integer = 1
	}
	return f
}

// serverLogger returns the log of a server of many devices: the given file, or standard
// error.
func serverLogger(file *os.File) *logger {
	if file == nil {
		return newServerLogger(os.Stderr)
	}
	_ = debug.SetCrashOutput(file, debug.CrashOptions{})
	return newServerLogger(file)
}

// journalCore is a log in systemd's journal. An entry has the fields of the log's lines,
// in upper case and with a prefix. Its message also has them, for readers.
type journalCore struct {
	journal *os.File
	fields  []zapcore.Field
}

var _ zapcore.Core = (*journalCore)(nil)

// newJournalLogger returns the log of one device in the journal.
func newJournalLogger(journal *os.File, id uint32) *logger {
	return (&logger{&journalCore{journal: journal}}).of(id)
}

// Enabled implements zapcore.Core.
func (c *journalCore) Enabled(level zapcore.Level) bool { return level >= zapcore.InfoLevel }

// With implements zapcore.Core.
func (c *journalCore) With(fields []zapcore.Field) zapcore.Core {
	return &journalCore{c.journal, slices.Concat(c.fields, fields)}
}

// Check implements zapcore.Core.
func (c *journalCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

// Sync implements zapcore.Core.
func (c *journalCore) Sync() error { return nil }

// Write implements zapcore.Core.
func (c *journalCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	entry := []systemd.Field{
		{Name: "SYSLOG_IDENTIFIER", Value: "ublk-loop"},
		{Name: "PRIORITY", Value: strconv.Itoa(priority(e.Level))},
	}
	words := []string{e.Message}
	for _, f := range slices.Concat(c.fields, fields) {
		values := zapcore.NewMapObjectEncoder()
		f.AddTo(values)
		value := fmt.Sprint(values.Fields[f.Key])
		words = append(words, f.Key+"="+report.OneLine(value))
		entry = append(entry, systemd.Field{Name: "UBLK_LOOP_" + strings.ToUpper(f.Key), Value: value})
	}
	return systemd.Log(c.journal, append(entry, systemd.Field{Name: "MESSAGE", Value: strings.Join(words, " ")}))
}

// priority returns the level of syslog(3) for a level.
func priority(level zapcore.Level) int {
	switch {
	case level >= zapcore.ErrorLevel:
		return 3
	case level >= zapcore.WarnLevel:
		return 4
	}
	return 6
}
