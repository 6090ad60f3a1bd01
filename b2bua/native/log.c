/* What pjsip logs, kept until the SIP thread takes it: any thread of pjsip may
 * log, and none of them may wait for the interpreter. Of each message only the
 * first line is kept: what follows a line end is never ours, and may be the
 * text of a peer.
 */
#include "native.h"

#include <pthread.h>
#include <string.h>

enum { LOG_LINES = 32, LOG_BYTES = 200 };

typedef struct log_line {
    int level;
    size_t length;
    char text[LOG_BYTES];
} log_line;

static struct {
    pthread_mutex_t lock;
    log_line lines[LOG_LINES];
    unsigned count;
    unsigned long dropped;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void keep(int level, const char *text, int bytes)
{
    size_t length = bytes > 0 ? (size_t)bytes : 0, i;

    for (i = 0; i < length && text[i] != '\r' && text[i] != '\n'; ++i)
        ;
    length = i < LOG_BYTES ? i : LOG_BYTES;
    pthread_mutex_lock(&kept.lock);
    if (kept.count < LOG_LINES) {
        log_line *line = &kept.lines[kept.count++];

        line->level = level;
        line->length = length;
        memcpy(line->text, text, length);
    } else {
        ++kept.dropped;
    }
    pthread_mutex_unlock(&kept.lock);
}

PyObject *log_keep(PyObject *self, PyObject *argument)
{
    long level = PyLong_AsLong(argument);

    (void)self;
    if (level == -1 && PyErr_Occurred())
        return NULL;
    if (level < 0 || level > PJ_LOG_MAX_LEVEL)
        return PyErr_Format(PyExc_ValueError, "log level %ld: %d is the highest that is compiled in", level,
                            PJ_LOG_MAX_LEVEL);
    pj_log_set_decor(PJ_LOG_HAS_SENDER);
    pj_log_set_log_func(&keep);
    pj_log_set_level((int)level);
    Py_RETURN_NONE;
}

PyObject *log_take(PyObject *self, PyObject *unused)
{
    log_line lines[LOG_LINES];
    unsigned count, i;
    unsigned long dropped;
    PyObject *list;

    (void)self;
    (void)unused;
    pthread_mutex_lock(&kept.lock);
    count = kept.count;
    dropped = kept.dropped;
    memcpy(lines, kept.lines, count * sizeof(lines[0]));
    kept.count = 0;
    kept.dropped = 0;
    pthread_mutex_unlock(&kept.lock);
    list = PyList_New((Py_ssize_t)count);
    for (i = 0; list && i < count; ++i) {
        PyObject *text = PyUnicode_DecodeUTF8(lines[i].text, (Py_ssize_t)lines[i].length, "replace");
        PyObject *entry = text ? Py_BuildValue("(iN)", lines[i].level, text) : NULL;

        if (entry)
            PyList_SET_ITEM(list, (Py_ssize_t)i, entry);
        else
            Py_CLEAR(list);
    }
    return list ? Py_BuildValue("(Nk)", list, dropped) : NULL;
}
