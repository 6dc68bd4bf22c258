# Runs a cell of R: run.R FOLDER ARGUMENT... Its variables are set, and written to FOLDER/out as JSON at the end.
# Base R alone, since images need not have more.
nbhull <- new.env()
nbhull$folder <- commandArgs(trailingOnly = TRUE)[1]

nbhull$quote <- function(text) {
  text <- enc2utf8(text)
  for (pair in list(c("\\", "\\\\"), c("\"", "\\\""), c("\n", "\\n"), c("\r", "\\r"), c("\t", "\\t"))) {
    text <- gsub(pair[1], pair[2], text, fixed = TRUE)
  }
  paste0("\"", gsub("[[:cntrl:]]", "", text), "\"")
}

nbhull$scalar <- function(value) {
  if (is.na(value) && !is.nan(value)) return("null")
  if (is.logical(value)) return(if (value) "true" else "false")
  if (is.character(value)) return(nbhull$quote(value))
  if (is.numeric(value)) {
    if (is.nan(value)) return("{\"$hull\":\"float\",\"text\":\"nan\"}")
    if (is.infinite(value)) return(sprintf("{\"$hull\":\"float\",\"text\":\"%s\"}", if (value > 0) "inf" else "-inf"))
    if (is.integer(value)) return(sprintf("%d", value))
    return(sprintf("%.17g", value))
  }
  stop("a ", class(value)[1], " cannot be handed to another container", call. = FALSE)
}

nbhull$each <- function(values) {
  paste0("[", paste(vapply(values, nbhull$json, ""), collapse = ","), "]")
}

nbhull$json <- function(value) {
  if (is.null(value)) return("null")
  if (is.factor(value)) value <- as.character(value)
  if (is.data.frame(value)) {
    names <- nbhull$each(as.list(names(value)))
    columns <- vapply(value, function(column) {
      if (is.factor(column)) column <- as.character(column)
      sprintf("{\"$hull\":\"objects\",\"items\":%s}", nbhull$each(as.list(column)))
    }, "")
    rows <- if (is.character(attr(value, "row.names"))) {
      sprintf("{\"$hull\":\"index\",\"values\":%s,\"name\":null}", nbhull$each(as.list(row.names(value))))
    } else {
      sprintf("{\"$hull\":\"range\",\"parts\":[0,%d,1],\"name\":null}", nrow(value))
    }
    return(sprintf(
      "{\"$hull\":\"frame\",\"columns\":{\"$hull\":\"index\",\"values\":%s,\"name\":null},\"index\":%s,\"data\":[%s]}",
      names, rows, paste(columns, collapse = ",")
    ))
  }
  if (is.matrix(value)) return(nbhull$each(lapply(seq_len(nrow(value)), function(row) as.list(value[row, ]))))
  if (is.list(value) || (is.atomic(value) && length(value) != 1) || !is.null(names(value))) {
    if (!is.atomic(value) && !is.list(value)) stop("a ", class(value)[1], " cannot be handed over", call. = FALSE)
    if (is.null(names(value))) return(nbhull$each(as.list(value)))
    pairs <- mapply(function(name, item) paste0(nbhull$quote(name), ":", nbhull$json(item)), names(value), as.list(value))
    return(paste0("{", paste(pairs, collapse = ","), "}"))
  }
  if (!is.atomic(value)) stop("a ", class(value)[1], " cannot be handed to another container", call. = FALSE)
  nbhull$scalar(value)
}

nbhull$hand_back <- function() {
  for (name in readLines(file.path(nbhull$folder, "names"))) {
    if (!exists(name, envir = globalenv(), inherits = FALSE)) next
    text <- tryCatch(nbhull$json(get(name, envir = globalenv())), error = function(problem) {
      assign("name", paste0(name, ".refused"), envir = parent.frame(4))
      sprintf("{\"refused\":%s,\"hint\":\"\"}", nbhull$quote(conditionMessage(problem)))
    })
    writeLines(text, file.path(nbhull$folder, "out", name), useBytes = TRUE)
  }
}

commandArgs <- function(trailingOnly = FALSE) {
  all <- base::commandArgs(trailingOnly)
  if (trailingOnly) all[-1] else all
}
source(file.path(nbhull$folder, "given.R"), local = globalenv())
nbhull$failed <- tryCatch(
  withCallingHandlers({
    source(file.path(nbhull$folder, "cell"), local = globalenv(), print.eval = TRUE)
    FALSE
  }, warning = function(problem) {
    message("Warning: ", conditionMessage(problem))
    invokeRestart("muffleWarning")
  }),
  error = function(problem) {
    message("Error: ", conditionMessage(problem))
    TRUE
  }
)
nbhull$hand_back()
if (nbhull$failed) quit(status = 1)
