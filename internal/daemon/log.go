package daemon

import (
	"os"
	"runtime/debug"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// logger is a server's log. It is zap's core without package zap, which
// links an HTTP server into each of our processes, 1.5 MiB of its memory.
type logger struct {
	core zapcore.Core
}

// newLogger returns the log about a device, each line of which carries its id.
func newLogger(file *os.File, id uint32) *logger { return newServerLogger(file).of(id) }

// of returns the part of a log that is about a device.
func (l *logger) of(id uint32) *logger {
	return &logger{l.core.With([]zapcore.Field{{Key: "id", Type: zapcore.Uint32Type, Integer: int64(id)}})}
}

// newServerLogger returns a log for people on a terminal, of lines of JSON
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
	// One write a line, so that several servers can share a file.
	return &logger{zapcore.NewCore(encoder, zapcore.Lock(file), zapcore.InfoLevel)}
}

// noLogger returns a log that goes nowhere.
func noLogger() *logger { return &logger{zapcore.NewNopCore()} }

func (l *logger) info(message string, fields ...zapcore.Field) {
	l.write(zapcore.InfoLevel, message, fields)
}

func (l *logger) warn(message string) { l.write(zapcore.WarnLevel, message, nil) }

func (l *logger) error(message string, err error) {
	l.write(zapcore.ErrorLevel, message, []zapcore.Field{logged("error", err.Error())})
}

// write drops its own error: there is nowhere to tell of it.
func (l *logger) write(level zapcore.Level, message string, fields []zapcore.Field) {
	_ = l.core.Write(zapcore.Entry{Level: level, Time: time.Now(), Message: message}, fields)
}

// logged returns a field of a line of the log.
func logged(key, value string) zapcore.Field {
	return zapcore.Field{Key: key, Type: zapcore.StringType, String: value}
}

func loggedBool(key string, value bool) zapcore.Field {
	f := zapcore.Field{Key: key, Type: zapcore.BoolType}
	if value {
		f.Integer = 1
	}
	return f
}

// serverLogger returns the log of a server of many devices: a file that was asked for,
// else standard error.
func serverLogger(file *os.File) *logger {
	if file == nil {
		return newServerLogger(os.Stderr)
	}
	_ = debug.SetCrashOutput(file, debug.CrashOptions{})
	return newServerLogger(file)
}
