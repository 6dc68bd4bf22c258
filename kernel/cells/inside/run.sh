# Runs a cell of shell: run.sh FOLDER ARGUMENT... Its variables are set, and written to FOLDER/out at the end.
nbhull_folder=$1
shift
. "$nbhull_folder/given.sh"
nbhull_hand_back() {
    nbhull_status=$?
    set +eu
    while read -r nbhull_name; do
        eval "if [ -n \"\${$nbhull_name+x}\" ]; then printf %s \"\$$nbhull_name\" >\"\$nbhull_folder/out/$nbhull_name\"; fi"
    done <"$nbhull_folder/names"
    exit "$nbhull_status"
}
trap nbhull_hand_back EXIT
. "$nbhull_folder/cell"
