#!/bin/bash
# First look at three laboratories by hand, as somebody would write it who knows ssh, sbatch and rsync well:
# one standing connection to each site, the jobs one after the other, and between sites just the folders that the next
# step needs, by way of the hub.
#
#   first_look_by_hand.sh FOLDER PROJECT wait|ask
#
# FOLDER has ssh_config, places (lines: site, the person's folder there) and steps/STEP.sh, the batch scripts.
# wait: `sbatch --wait`. ask: `sbatch`, then `squeue` twice a second on the site's login host.
# Prints lines `begin|before STEP|submit STEP|after STEP|end SECONDS` and `cpu SECONDS`.
set -euo pipefail
folder=$1 project=$2 how=$3
ssh=(ssh -F "$folder/ssh_config")
declare -A at
while read -r site place; do at[$site]=$place/projects/$project; done <"$folder/places"
here=$folder/$project
mkdir "$here"

note() { echo "$* $EPOCHREALTIME"; }

ticks() { # CPU of this script, of all it has waited for, and of the standing connections, from proc(5)
    local sum=0 pid fields
    for pid in $$ "${masters[@]}"; do
        read -r -a fields <"/proc/$pid/stat"
        sum=$((sum + fields[13] + fields[14] + fields[15] + fields[16]))
    done
    echo $sum
}

step() { # STEP SITE
    note submit "$1"
    "${ssh[@]}" "$2" "cd ${at[$2]} && cat >$1.sh" <"$folder/steps/$1.sh"
    if [ "$how" = wait ]; then
        "${ssh[@]}" "$2" "cd ${at[$2]} && sbatch --wait --parsable $1.sh" >"$here/$1.job"
    else
        "${ssh[@]}" "$2" "cd ${at[$2]} && job=\$(sbatch --parsable $1.sh) && echo \$job &&
            while [ -n \"\$(squeue --noheader --jobs \$job 2>/dev/null)\" ]; do sleep 0.5; done &&
            [ -e $1.ended ]" >"$here/$1.job"
    fi
    note after "$1"
}

bring() { # FROM TO FOLDER...
    local from=$1 to=$2
    shift 2
    rsync -a -e "${ssh[*]}" "${@/#/$from:${at[$from]}/}" "$here/"
    rsync -a -e "${ssh[*]}" "${@/#/$here/}" "$to:${at[$to]}/"
}

masters=()
trap 'kill "${masters[@]}" 2>/dev/null; wait' EXIT
for site in "${!at[@]}"; do
    "${ssh[@]}" -M -N "$site" >/dev/null &
    masters+=($!)
    until "${ssh[@]}" -O check "$site" 2>/dev/null; do sleep 0.05; done
done
used=$(ticks)
note begin

note before import
"${ssh[@]}" bnl-sdcc "mkdir -p ${at[bnl-sdcc]}/Movies ${at[bnl-sdcc]}/Gain &&
    cd ${at[bnl-sdcc]}/Movies && ln -s ../../../movies/*.mrcs . && cd ../Gain && ln -s ../../../movies/gain.mrc ."
step import bnl-sdcc
note before motioncorr
step motioncorr bnl-sdcc

note before ctffind
"${ssh[@]}" ornl-cades "mkdir -p ${at[ornl-cades]}"
bring bnl-sdcc ornl-cades MotionCorr
step ctffind ornl-cades
note before autopick
step autopick ornl-cades

note before extract
"${ssh[@]}" anl-lcrc "mkdir -p ${at[anl-lcrc]}"
rsync -a -e "${ssh[*]}" "$here/MotionCorr" "anl-lcrc:${at[anl-lcrc]}/" # it lies here already
bring ornl-cades anl-lcrc CtfFind AutoPick
step extract anl-lcrc
note before class2d
step class2d anl-lcrc

note end
echo "cpu $(($(ticks) - used))"
