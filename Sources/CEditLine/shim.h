#pragma once
#include <histedit.h>
#include <stdio.h>

// libedit sets its options through functions with a variable number of arguments, which Swift cannot call.

typedef int (*cel_read_function)(EditLine *, wchar_t *);
typedef char *(*cel_prompt_function)(EditLine *);
typedef unsigned char (*cel_edit_function)(EditLine *, int);

// An editor on standard input and output, or NULL. `read` gets it its characters, and `paste` follows the
// sequence with which terminals begin a pasted block.
static inline EditLine *cel_open(void *owner, History *lines, cel_prompt_function prompt,
                                 cel_read_function read, cel_edit_function paste) {
  EditLine *editor = el_init("flashinfer-run", stdin, stdout, stderr);
  if (!editor) return NULL;
  el_set(editor, EL_CLIENTDATA, owner);
  el_set(editor, EL_PROMPT, prompt);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_HIST, history, lines);
  el_source(editor, NULL);
  el_set(editor, EL_GETCFN, read);
  el_set(editor, EL_ADDFN, "paste-block", "Insert a pasted block", paste);
  el_set(editor, EL_BIND, "\033[200~", "paste-block", NULL);
  return editor;
}

// What `cel_open` was given.
static inline void *cel_owner(EditLine *editor) {
  void *owner = NULL;
  el_get(editor, EL_CLIENTDATA, &owner);
  return owner;
}

// Empty lines to go back to, or NULL; the oldest go first.
static inline History *cel_make_history(int count) {
  History *lines = history_init();
  HistEvent event;
  if (!lines) return NULL;
  history(lines, &event, H_SETSIZE, count);
  history(lines, &event, H_SETUNIQUE, 1);
  return lines;
}

static inline void cel_add(History *lines, const char *line) {
  HistEvent event;
  history(lines, &event, H_ENTER, line);
}

static inline void cel_flush(void) { fflush(stdout); }
